.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

.PHONY: test
test: ## Run all tests against a private PostgreSQL (or the one DATABASE_URL names)
	@scripts/test $(ARGS)
