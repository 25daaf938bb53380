# The Python package; included by the Makefile.

.PHONY: test-python package-python wheel bench-python

test: test-python package-python

test-python: ## The Python package in a venv of its own: tests, types, examples (PYTHON=python3.9 for another)
	@scripts/setup test
	@fastsock-py/scripts/test $(ARGS)

package-python: ## The Python package as users get it: sdist, wheel, both installed and run
	@scripts/setup test
	@fastsock-py/scripts/package

wheel: ## The wheel and the sdist, in fastsock-py/dist
	@fastsock-py/scripts/package build

bench: bench-python

bench-python: ## What a message costs in Python, and the same echo by aiohttp and websockets (PYTHON=python3.13 for another)
	@fastsock-py/scripts/package bench
