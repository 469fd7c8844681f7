# Every target works from a clean clone and leaves all that it makes inside it.
# Change a number with e.g. `make demo DEMO_SNR=0.1`.

PYTHON ?= python3
# What is installed first. Another build of PyTorch: make demo TORCH=torch CONSTRAINTS=
TORCH ?= torch==2.13.0
CONSTRAINTS ?= -c constraints.txt

# The demonstration: a phantom with D2 symmetry, some 4 minutes on two cores.
DEMO_BOX ?= 48
DEMO_PIXEL_SIZE ?= 5
DEMO_PARTICLES ?= 3000
DEMO_SNR ?= 0.5
DEMO_MAX_SHIFT ?= 5
DEMO_SYMMETRY ?= D2
DEMO_SEED ?= 0
DEMO_OPTIONS ?=

# Tests: one thread in each of so many processes.
TEST_WORKERS ?= 2
TEST_OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CRYOGAN := $(BIN)/cryogan

.DEFAULT_GOAL := help
.PHONY: help install demo test slow wheel benchmarks lint docs docs-settings clean

help: ## This list.
	@echo "CryoGAN. Targets of make:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' Makefile | while read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## The environment .venv with the package and the developers' tools; the other targets call it.

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CryoGAN needs Python 3.11 or later; give make PYTHON=...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(CONSTRAINTS) $(TORCH)
	$(BIN)/pip install $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: $(INSTALLED) ## Simulate particles of a phantom, reconstruct two half maps from zero, compare them and the truth (4 minutes).
	rm -rf demo
	$(CRYOGAN) simulate --box $(DEMO_BOX) --pixel-size $(DEMO_PIXEL_SIZE) --particles $(DEMO_PARTICLES) \
		--snr $(DEMO_SNR) --max-shift $(DEMO_MAX_SHIFT) --seed $(DEMO_SEED) --out demo/particles
	$(CRYOGAN) reconstruct demo/particles/particles.star --noise demo/particles/noise.star \
		--symmetry $(DEMO_SYMMETRY) --max-shift $(DEMO_MAX_SHIFT) --seed $(DEMO_SEED) $(DEMO_OPTIONS) --out demo/run
	$(CRYOGAN) align demo/run/map.mrc demo/particles/truth.mrc --out demo/map_on_truth.mrc
	@echo; echo "FSC of the two half maps:"
	@$(CRYOGAN) fsc demo/run/half1_map_unfil.mrc demo/run/half2_map_unfil.mrc --mask demo/run/mask.mrc --out demo/fsc_half_maps
	@echo; echo "FSC of the map with the truth:"
	@$(CRYOGAN) fsc demo/map_on_truth.mrc demo/particles/truth.mrc --out demo/fsc_truth
	@echo; echo "Map: demo/run/map.mrc. Pictures:"
	@ls demo/run/figures/*.png demo/fsc_half_maps/fsc.png demo/fsc_truth/fsc.png

test: $(INSTALLED) ## All tests but the slow ones (under 15 minutes on two cores).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) $(TEST_OPTIONS)

slow: $(INSTALLED) ## The tests that take minutes each, one after the other.
	$(BIN)/python -m pytest -m slow $(TEST_OPTIONS)

wheel: $(INSTALLED) ## The package as it is released, in dist, checked.
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

DATA ?= ../shared/data
SEEDS ?= 0 1 2 3 4
benchmarks: $(INSTALLED) ## Measure everything in docs/results.md anew, on DATA, and write that page (hours; needs RELION).
	mkdir -p docs/runs && find docs/runs -mindepth 1 -maxdepth 1 ! -name 'gpu*.json' -exec rm -rf {} +  # those of a GPU stay
	set -e; for set in bgal_paper:D2 bgal_hard:D2 ribo_c1:C1; do \
		name=$${set%:*}; group=$${set#*:}; \
		$(BIN)/python benchmarks/accuracy.py $(DATA)/$$name --seeds $(SEEDS) --out docs/runs -- --symmetry $$group; \
		$(BIN)/python benchmarks/refinement.py $(DATA)/$$name docs/runs/$${name}_seed*; \
		$(BIN)/python benchmarks/refinement.py $(DATA)/$$name docs/runs/$${name}_seed0 --true-poses; \
		$(BIN)/python benchmarks/relion.py $(DATA)/$$name --symmetry $$group --out docs/runs/$${name}_relion; \
		$(BIN)/python benchmarks/relion.py $(DATA)/$$name --symmetry $$group --out docs/runs/$${name}_relion_refined \
			--reference docs/runs/$${name}_relion/run/run_it300_class001.mrc; \
		$(BIN)/python benchmarks/ablation.py $(DATA)/$$name --symmetry $$group --out docs/runs/ablation_$$name.json; done
	$(BIN)/python benchmarks/junk.py $(DATA)/models --scratch junk_runs --out docs/runs/junk
	$(BIN)/python benchmarks/preferred_views.py $(DATA)/ribo_c1 --out docs/runs/preferred_views
	$(BIN)/python benchmarks/pose_prior.py --out docs/runs/pose_prior.json
	$(BIN)/python benchmarks/classes.py --out docs/runs/classes.json
	set -e; for each in critics poisson; do \
		$(BIN)/python benchmarks/choices.py $$each $(DATA)/bgal_paper --out docs/runs/choices; done
	$(BIN)/python benchmarks/scaling.py --out docs/runs/scaling.json
	$(BIN)/python benchmarks/estimate.py --scratch estimate --out docs/runs/estimate.json
	$(BIN)/python benchmarks/distributed.py --out docs/runs/distributed.json
	$(BIN)/python benchmarks/million.py $(DATA)/bgal_paper --scratch million --out docs/runs/million.json
	$(BIN)/python benchmarks/cluster_model.py --measure
	$(BIN)/python -m pytest benchmarks/operations.py --benchmark-json=docs/runs/operations.tmp
	$(BIN)/python benchmarks/operations.py docs/runs/operations.tmp --out docs/runs/operations.json
	$(BIN)/python benchmarks/theorem1.py --out docs/runs/theorem1.json
	$(BIN)/python benchmarks/poisson.py --out docs/runs/poisson.json
	$(BIN)/python benchmarks/live.py --scratch live_collection --out docs/runs/live
	find docs/runs -type f ! -name '*.json' -delete && find docs/runs -type d -empty -delete
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/cluster_model.py

lint: $(INSTALLED) ## Style, types, the direction of imports, spelling, and whether docs/settings.md is up to date.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python docs/make_settings.py --check

docs: $(INSTALLED) ## The pages, in docs/_build/html; a warning is an error.
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

docs-settings: $(INSTALLED) ## Write docs/settings.md, the table of warnings and the drawing of the layers from the program.
	$(BIN)/python docs/make_settings.py
	$(BIN)/python docs/make_warnings.py
	$(BIN)/python docs/make_architecture.py

clean: ## Remove the environment, the demonstration and all caches.
	rm -rf $(VENV) demo build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +
