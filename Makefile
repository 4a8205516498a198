# Everything a developer or CI runs. `make help` lists it.
SHELL := /bin/bash
GO ?= go
BIN := bin
PKGS := ./...
# The race detector of Go 1.26 crashes in the bubbles of synctest (golang/go#78156), that of
# 1.27 does not. Where the module proxy has it not, tests run without one.
RACE_GO := go1.27.4
# Programs need no C. Only the race detector does.
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --tags --match 'v*' 2>/dev/null || echo dev)
COMMIT ?= $(shell git describe --always --abbrev=40 --exclude '*' --dirty=-dirty 2>/dev/null)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null)
BUILDINFO := quorate/internal/buildinfo
LDFLAGS := -X $(BUILDINFO).version=$(VERSION) -X $(BUILDINFO).commit=$(COMMIT) -X $(BUILDINFO).date=$(DATE)

.DEFAULT_GOAL := help
.PHONY: help build run test cover contract scenarios sim fleets life race fuzz bench bench-scale bench-short bench-failover artifacts e2e lint vuln tidy check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binaries into bin/, with their version, commit and its date
	@mkdir -p $(BIN)
	$(GO) build -buildvcs=auto -ldflags '$(LDFLAGS)' -o $(BIN)/storage_controller ./cmd/storage_controller
	$(GO) build -buildvcs=auto -ldflags '$(LDFLAGS)' -o $(BIN)/storcon_cli ./cmd/storcon_cli
	$(GO) build -buildvcs=auto -ldflags '$(LDFLAGS)' -o $(BIN)/quorate ./cmd/quorate

run: build ## three controllers and six pageservers; kill a pageserver, then the leader, and watch (ONCE=1 exits)
	$(BIN)/quorate demo --controller $(BIN)/storage_controller $(if $(filter-out 0,$(ONCE)),--once) $(if $(NEON_BIN),--neon-bin $(NEON_BIN))

test: ## all tests, with the race detector
	@mkdir -p $(BIN)
	@set -o pipefail; export GOTOOLCHAIN=$(RACE_GO) CGO_ENABLED=1 race=-race; \
	  $(GO) version || { echo "$(RACE_GO) cannot be fetched: no race detector"; GOTOOLCHAIN=auto race=; }; \
	  command -v $$($(GO) env CC) >/dev/null || { echo "no C compiler: no race detector"; race=; }; \
	  test -n "$$race" || CGO_ENABLED=0; \
	  $(GO) test $$race -cover -shuffle=on -timeout 40m $(PKGS) | tee $(BIN)/test.log

cover: ## every package is covered by its own tests: 70 % at least, as the last `make test` has measured
	@test -s $(BIN)/test.log || $(MAKE) --no-print-directory test
	$(GO) run ./internal/covercheck $(BIN)/test.log

race: test ## the same

contract: ## every row of the contract with existing clients ticked by a test, and the count
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	CONTRACT_TICKS=$$dir $(GO) test -count=1 -run "Contract|Failpoint" $$(git grep -l '"quorate/internal/contract"' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's,^,./,') && ok=yes; \
	$(GO) run ./internal/contract/count $$dir && test "$$ok" = yes

scenarios: ## every story of testcluster in every variant (make test has the usual three), and every state of a founding
	$(GO) test ./cluster -run '^TestFoundingModel$$' -count=1 -timeout 10m
	$(GO) test ./testcluster -run '^TestScenarios$$' -count=1 -timeout 30m -args -scenarios.all
	$(GO) test ./internal/neonstate ./internal/handover -count=1 -timeout 30m -args -moving.databases 2000

sim: ## the real stack in virtual time under random faults (HOURS=virtual hours, SEED=first seed)
	$(GO) test ./testcluster -run 'TestSimulation' -count=1 -timeout 60m -args -sim.hours=$(or $(HOURS),2) -sim.seed=$(or $(SEED),1)

fleets: ## the table and the picture of docs/balance.md, of fleets of 2 to 300 pageservers in virtual time
	$(GO) test ./reconciler -run '^TestFleets$$' -count=1 -timeout 30m -v -args -fleets.all -fleets.dir=$(CURDIR)/docs

life: ## processes that come, go and die under load, and lose nothing (ROUNDS=rounds, SEED=seed)
	$(GO) test ./testcluster -run 'TestLifeOfACluster' -count=1 -timeout 60m -v -args -life.rounds=$(or $(ROUNDS),200) -life.seed=$(or $(SEED),1)

fuzz: ## every fuzz target for FUZZTIME (10s)
	@set -e; for pkg in $$($(GO) list $(PKGS)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),10s) -fuzzminimizetime 10x $$pkg; \
	  done; done

bench: build ## the table with its goals, results as JSON in bin/results and a report with plots, bin/bench.html
	$(BIN)/quorate bench --controller $(BIN)/storage_controller --out-dir $(BIN)/results --html $(BIN)/bench.html

bench-scale: build ## the same for a million shards, bin/bench-scale.html: up to an hour
	$(BIN)/quorate bench --controller $(BIN)/storage_controller --only scale,size --members 3 --shards 1000000 --sizes 10000,100000,1000000 \
	  --pageservers 20 --restarts 2 --idle 5m --out-dir $(BIN)/results --html $(BIN)/bench-scale.html

BASE ?= HEAD~1
SHORT := create.cpu,locate.cpu,describe.cpu,memory.all

bench-short: build ## processor time and memory beside those of BASE (HEAD~1) in one run of two minutes; fails where one is more than 10 % worse
	@rm -rf .run/base $(BIN)/short $(BIN)/short.db
	@git rev-parse -q --verify '$(BASE)^{commit}' >/dev/null || { echo "THERE IS NO COMMIT $(BASE) TO COMPARE WITH: nothing is compared"; exit 0; }; \
	set -e; git clone -q --shared --no-checkout . .run/base; \
	git -C .run/base checkout -q $$(git rev-parse '$(BASE)^{commit}'); \
	(cd .run/base && $(GO) build -buildvcs=auto -o $(CURDIR)/$(BIN)/base_controller ./cmd/storage_controller); \
	$(BIN)/quorate bench --controller $(BIN)/storage_controller --against $(BIN)/base_controller --only requests --members 3 \
	  --tenants 500 --reads 1s --rounds 4 --out-dir $(BIN)/short; \
	$(BIN)/quorate results --database $(BIN)/short.db ingest $(BIN)/short; \
	$(BIN)/quorate results --database $(BIN)/short.db regressions --result $(SHORT)

bench-failover: build ## write gaps over many kills, freezes, hung disks, cut links and hand-overs
	$(GO) build -buildvcs=auto -o $(BIN)/testcontroller ./testcluster/testcontroller
	$(BIN)/quorate bench-failover --controller $(BIN)/testcontroller --out-dir $(BIN)/results --html $(BIN)/bench-failover.html

artifacts: ## static binaries, their parts (SBOM), an OCI image, packages and a chart of HEAD, in bin/release
	cd internal/release && $(GO) run ./build --out $(CURDIR)/$(BIN)/release

e2e: build ## what needs more than Go: results, and moving in and out, with a real Postgres (from Maven Central); the artifacts, unpacked and run (systemd, rpm, root)
	QUORATE_E2E=1 $(GO) test -count=1 -timeout 10m ./internal/resultsdb ./internal/neondb
	QUORATE_E2E=1 QUORATE_STORAGE_CONTROLLER=$(CURDIR)/$(BIN)/storage_controller $(GO) test -count=1 -timeout 10m -run '^TestMoving' ./internal/storagecontroller
	cd internal/release && $(GO) vet ./... && $(GO) test -count=1 -timeout 10m ./...

lint: ## gofmt, vet, staticcheck, govulncheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt"; exit 1; }
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)
	@$(MAKE) --no-print-directory vuln

vuln: ## known vulnerabilities, when the database can be reached
	@out=$$($(GO) tool govulncheck $(PKGS) 2>&1); code=$$?; \
	if [ $$code -ne 0 ] && grep -q 'fetching vulnerabilities' <<<"$$out"; then echo "govulncheck: its database cannot be reached, skipped"; \
	else echo "$$out" | tail -20; exit $$code; fi

tidy: ## go.mod as it should be
	$(GO) mod tidy
	gofmt -w $$(git ls-files '*.go')

check: lint test cover scenarios sim ## what CI runs

clean: ## remove what was built
	rm -rf $(BIN) .run
