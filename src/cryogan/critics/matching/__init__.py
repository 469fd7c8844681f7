"""The matching critic, the default: images are matched with projections of the map, and the critic has a closed form.

Read `critic.py` first, equation (iii) of docs/method.md. `search.py`, or `symmetric_search.py` for polyhedra, and
`marching.py` are the two stages of a run; `templates.py`, `pose_optimiser.py` and `normal_equations.py` find the poses
to which the critic attends.
"""
