"""The matching critic, the default: images are matched with projections of the map, and the critic has a closed form.

Read `critic.py` first, equation (iii) of docs/method.md. `search.py` and `marching.py` are the two stages of a run,
`templates.py` and `pose_optimiser.py` find the poses to which the critic attends.
"""
