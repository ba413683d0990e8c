.DEFAULT_GOAL := help
.PHONY: help check format test slow

help: ## list what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

check: ## lint, formatting and types
	ruff format --check .
	ruff check .
	mypy

format: ## format and mend what ruff can mend
	ruff format .
	ruff check --fix .

test: ## the default tests
	pytest

slow: ## the slow tests, which CI runs too
	pytest -m slow
