# Sidewinder. `make help` lists the targets.
GO ?= go
BIN := bin

# What `make demo` passes on; see README.md.
DATAPLANE ?= auto
NODES ?= 3
PODS ?= 2
PATHS ?= 2
KEEP ?=
REPORT ?=
FUZZTIME ?= 10s
TIMES ?= 20

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help
.PHONY: help build demo failover scale test race generate verify lint bench fuzz clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

build: ## build all programs, and the IPAM plugin that the lab uses, into bin/
	$(GO) build -trimpath -o $(BIN)/sidewinder-agent ./agent
	$(GO) build -trimpath -o $(BIN)/sidewinder-cni ./cni
	$(GO) build -trimpath -o $(BIN)/vpp-manager ./vpp-manager
	$(GO) build -trimpath -o $(BIN)/sidewinder-lab ./test/lab/cmd/sidewinder-lab
	$(GO) build -trimpath -o $(BIN)/host-local github.com/containernetworking/plugins/plugins/ipam/host-local

demo: build ## pods on several nodes talk over SRv6 (DATAPLANE= NODES= PODS= PATHS= KEEP=1 REPORT=file.json)
	@$(BIN)/sidewinder-lab demo --dataplane=$(DATAPLANE) --nodes=$(NODES) --pods=$(PODS) --paths=$(PATHS) \
		$(if $(KEEP),--keep) $(if $(REPORT),--report='$(REPORT)')

failover: build ## VPP killed, stopped, restarted and crash-looped TIMES each under traffic (TIMES=20 REPORT=file.json)
	@$(BIN)/sidewinder-lab failover --times=$(TIMES) $(if $(REPORT),--report='$(REPORT)')

scale: build ## 110 pods on one VPP node: memory and idle CPU (REPORT=file.json)
	@$(BIN)/sidewinder-lab scale $(if $(REPORT),--report='$(REPORT)')

test: ## all tests; what needs root, a kernel feature or VPP says so when it is skipped
	$(GO) test -timeout 20m ./...

race: ## the tests that need no lab, with the race detector
	$(GO) test -race -timeout 20m ./agent/... ./binapi/... ./cni/... ./api/... ./vpp-manager/... ./xdp/...

fuzz: ## each fuzz target for a short while
	FUZZTIME=$(FUZZTIME) test/fuzz.sh

generate: ## write the generated files anew
	$(GO) generate ./...

verify: ## fail when generated files differ, code is not formatted, or an import rule is broken
	test/verify.sh

lint: ## go vet and golangci-lint
	$(GO) vet ./...
	$(GO) run $(GOLANGCI_LINT) run ./...

bench: build ## benchmarks: compile and diff, programming a cluster (also VPP beside its raw API), CNI beside ptp
	$(GO) test -run '^$$' -bench . -benchtime 5x -timeout 30m ./test/bench/... ./agent/... ./cni
	$(GO) test -run '^$$' -bench . -timeout 10m ./xdp
	$(GO) run ./test/bench/cmd/sidewinder-bench

clean: ## remove what build made
	rm -rf $(BIN)
