# Placeholder rule set; the build engineer owns this file.
VENV ?= .venv
test:
	$(VENV)/bin/ruff check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports && $(VENV)/bin/python -m pytest -m "not slow"
.PHONY: test
