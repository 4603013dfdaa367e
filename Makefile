# Everything one does with this repository. `make` alone lists the targets.
#
# Needed: Go and make. The linters and generators are built on first use, from
# pinned versions: go tools from tools/*.mod, the others into bin/tools.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.SECONDEXPANSION:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables --no-print-directory

GOLANGCI_VERSION    := v2.15.0
GOVULNCHECK_VERSION := v1.6.0
TINYGO_VERSION      := 0.41.0
BENCHSTAT_VERSION   := v0.0.0-20260908200009-22c9c6c9d4da

# What a caller may set.
ARGS      ?=#         flags of `nolad dev` for run, of tools/cluster/cmd for run-cluster, of tools/bench for bench, bench-herd, bench-peers and bench-cluster
TESTFLAGS ?=#         flags of every `go test`, for example -v or -json
NODES     ?= 1#       nodes of the local Cassandra: 1 or 3
KEEP      ?=#         not empty: `make cassandra` starts with the data of the last run
FUZZTIME  ?= 10s#     how long each fuzz target runs
AGAINST   ?=#         commit that `make breaking` compares with
ALONE     ?=#         command before each slice of `make bench-wasm`, such as one that waits for a quiet machine

GO_TEST   = go test -count=1 -timeout 15m $(TESTFLAGS)
BUF       = go tool -modfile=tools/buf.mod buf
GOFUMPT   = go tool -modfile=tools/proto.mod gofumpt
GOLANGCI  = bin/tools/golangci-lint-$(GOLANGCI_VERSION)
TINYGO    = $(or $(value XDG_CACHE_HOME),$(HOME)/.cache)/nola/tinygo-$(TINYGO_VERSION)
BENCHSTAT = bin/tools/benchstat-$(BENCHSTAT_VERSION)
VULNCHECK = bin/tools/govulncheck-$(GOVULNCHECK_VERSION)

# Go guests: packages that build for wasip1 only. The examples become modules a
# user can push, those of testdata stay beside their sources for the tests.
EXAMPLE_MODULES := $(patsubst %,bin/modules/%.wasm,$(shell grep -ls '^//go:build wasip1' examples/*/main.go | cut -d/ -f2))
TEST_MODULES    := $(patsubst testdata/guests/%/main.go,testdata/guests/%.wasm,$(wildcard testdata/guests/*/main.go))
GUEST_LIBRARY   := $(filter-out %_test.go,$(shell find guest -name '*.go' 2>/dev/null)) go.mod go.sum
BUILD_GUEST      = GOOS=wasip1 GOARCH=wasm go build -trimpath -buildmode=c-shared -ldflags='-s -w' -o $@

# Suites that run beyond `make test`. A package listed here that does not exist
# is named when its target runs, so that no suite is left out in silence.
RACE_PACKAGES  := wasmhost persistence shard client server
# Those of persistence/cqlstore, at full size, are a part of `make test-cassandra`,
# which runs all of that package.
CRASH_PACKAGES := persistence/pebblestore shard server cmd/nolad
CASSANDRA_PACKAGES := tools/cassandra persistence/cqlstore
CLUSTER_PACKAGES := tools/cluster

# $(call present,packages) keeps those that exist, as patterns for the go tool;
# $(call absent,packages) is a command that names the others.
present = $(strip $(foreach p,$(1),$(if $(wildcard $(p)),./$(p)/...)))
absent  = $(foreach p,$(1),$(if $(wildcard $(p)),,echo "$@: skipped, there is no package $(p)";)) :

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##### use it

.PHONY: run
run: build $(EXAMPLE_MODULES) ## build everything and start a server for development
	exec bin/nolad dev $(ARGS)

.PHONY: build
build: bin/nolad bin/nolactl ## build the two binaries into bin/

.PHONY: bin/nolad bin/nolactl
bin/nolad bin/nolactl:
	go build -trimpath -o $@ ./cmd/$(@F)

.PHONY: run-cluster
run-cluster: build $(EXAMPLE_MODULES) ## start a local Cassandra and three servers that share it; NODES and KEEP as for cassandra
	exec go run ./tools/cluster/cmd -nodes $(NODES) $(if $(KEEP),-keep) $(ARGS)

.PHONY: cassandra
cassandra: ## start a local Cassandra, NODES=3 for three, KEEP=1 with the data of the last run
	@go run ./tools/cassandra/cmd start -nodes $(NODES) $(if $(KEEP),-keep)

.PHONY: cassandra-stop
cassandra-stop: ## stop the local Cassandra
	@go run ./tools/cassandra/cmd stop

.PHONY: guests
guests: $(EXAMPLE_MODULES) $(TEST_MODULES) ## build the guests of examples/ and testdata/guests/ that this machine can build
	go run ./tools/guests

# The guests' other compilers come from the system: Rust by rustup, C, WAT and
# the parts of TinyGo from packages (testdata/guests/README.md).
.PHONY: guest-tools
guest-tools: ## fetch the compilers of guests that can be had without the system's help
	@if command -v npm >/dev/null; then
		npm install --prefix testdata/guests/assemblyscript --no-audit --no-fund --no-package-lock
	else
		echo "guest-tools: skipped AssemblyScript, there is no npm"
	fi
	if command -v llvm-config-19 >/dev/null; then
		$(MAKE) $(TINYGO)/bin/tinygo
	else
		echo "guest-tools: skipped TinyGo, there is no LLVM 19 (Debian: llvm-19-dev libclang-19-dev lld-19)"
	fi

bin/modules/%.wasm: $$(wildcard examples/$$*/*.go) $$(wildcard examples/$$*/manifest.yaml) $(GUEST_LIBRARY)
	mkdir -p bin/modules
	cp examples/$*/manifest.yaml bin/modules/$*.yaml
	$(BUILD_GUEST) ./examples/$*

testdata/guests/%.wasm: $$(wildcard testdata/guests/$$*/*.go) $(GUEST_LIBRARY)
	$(BUILD_GUEST) ./testdata/guests/$*

##### prove it

.PHONY: test
test: guests ## run every test, a sample of the slow suites included
	$(GO_TEST) ./...

.PHONY: race
race: guests ## run the concurrent packages under the race detector, without explorers of step machines, prices of turns, comparisons of ways to run guests and compile bombs, which have one goroutine; TestConcurrent* at full size, ten million turns in each other's slots among them
	@$(call absent,$(RACE_PACKAGES))
	$(if $(call present,$(RACE_PACKAGES)),$(GO_TEST) -timeout 20m -race -skip '^Test(Explore|Wander|Fleet|Worlds|TurnsCostTheSame|Conformance|CompileBombs)|^TestHostileCorpus$$/^compile' $(call present,$(RACE_PACKAGES)))
	$(if $(call present,$(RACE_PACKAGES)),NOLA_SLOW=1 $(GO_TEST) -race -run '^TestConcurrent' $(call present,$(RACE_PACKAGES)))

.PHONY: crash
crash: guests ## run the suites of crashes and of many actors (TestCrash*, TestLarge*) at full size, actors in memory mode in each other's slots, every hostile guest on a server, schedules in every time zone, shards that move because of their load, and the protocol of lanes within wider bounds
	@$(call absent,$(CRASH_PACKAGES))
	$(if $(call present,$(CRASH_PACKAGES)),NOLA_SLOW=1 $(GO_TEST) -run '^Test(Crash|Large)' $(call present,$(CRASH_PACKAGES)))
	$(if $(call present,wasmhost),NOLA_SLOW=1 $(GO_TEST) -run '^TestConcurrent(CanaryInMemoryMode|RandomStreams)$$' ./wasmhost)
	$(if $(call present,scheduler),NOLA_SLOW=1 $(GO_TEST) -run '^TestAgainstEnumerator$$' $(call present,scheduler))
	$(if $(call present,server),NOLA_SLOW=1 $(GO_TEST) -run '^Test(ClusterMovesLoad|HostileCorpusOnAServer)$$' ./server)
	$(if $(call present,persistence/lane),$(GO_TEST) -run '^Test(Explore|Wander)' ./persistence/lane -wide -deep 30000)

.PHONY: test-cassandra
test-cassandra: ## run the tests that start a real Cassandra
	@$(call absent,$(CASSANDRA_PACKAGES))
	$(if $(call present,$(CASSANDRA_PACKAGES)),NOLA_SLOW=1 $(GO_TEST) -p 1 $(call present,$(CASSANDRA_PACKAGES)))

.PHONY: test-cluster
test-cluster: ## break the parts of three servers on three nodes of Cassandra, while clients call
	@$(call absent,$(CLUSTER_PACKAGES))
	$(if $(call present,$(CLUSTER_PACKAGES)),NOLA_SLOW=1 $(GO_TEST) -timeout 25m $(call present,$(CLUSTER_PACKAGES)))

.PHONY: test-containers
test-containers: ## run the store's tests on ScyllaDB and Cassandra in containers, where there is Docker
	cd tools/containers && $(GO_TEST) -timeout 90m -v ./...

.PHONY: fuzz
fuzz: guests ## fuzz every target for FUZZTIME (10s)
	@found=$$(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort || true)
	if [[ -z $$found ]]; then echo "fuzz: skipped, there is no fuzz target"; exit; fi
	while IFS=: read -r file func; do
		name=$${func#func }
		echo "fuzz: $$name in $${file%/*} for $(FUZZTIME)"
		$(GO_TEST) -run "^$$name\$$" -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$${file%/*}"
	done <<< "$$found"

.PHONY: cover
cover: guests ## measure which statements the tests reach; bin/cover.html shows them
	@mkdir -p bin
	$(GO_TEST) -coverpkg=./... -coverprofile=bin/cover.all ./...
	grep -vE '\.pb\.go:|\.connect\.go:' bin/cover.all > bin/cover.out
	go tool cover -html=bin/cover.out -o bin/cover.html
	go tool cover -func=bin/cover.out | tail -n 1

.PHONY: bench
bench: build guests ## measure this machine's limits and the product beside them
	go run ./tools/bench run $(ARGS)

.PHONY: bench-herd
bench-herd: build guests ## measure a million schedules due at one instant, with calls beside them
	go run ./tools/bench herd -rounds 1 $(ARGS)

.PHONY: bench-peers
bench-peers: build guests ## measure other products beside ours, with the same client
	go run ./tools/bench peers $(ARGS)

.PHONY: bench-cluster
bench-cluster: build guests ## measure three servers on three nodes of Cassandra, also while they are killed, drained and restarted
	go run ./tools/bench cluster -kills 20 -drains 4 -restarts 2 $(ARGS)

# Each slice is some benchmarks and how long, or how often, one runs; ten times.
WASM_SLICES := Warm:100ms HostCall:100ms Crossing:100ms Slot:100ms Wake:100ms InstanceBytes:1x Dormant:1000000x Runaway:20x Collection:20x

.PHONY: bench-wasm
bench-wasm: guests $(BENCHSTAT) ## measure guests under our host and under wapc-go, ten times each
	@mkdir -p bin
	go test -c -o bin/wasmhost.test ./wasmhost
	rm -f bin/bench-wasm.txt
	for slice in $(WASM_SLICES); do
		(cd wasmhost; $(ALONE) ../bin/wasmhost.test -test.run '^$$' -test.bench "^Benchmark$${slice%:*}" -test.benchtime "$${slice#*:}" -test.count 10 -test.timeout 15m) | tee -a bin/bench-wasm.txt
	done
	$(BENCHSTAT) -row .name,/guest -col /host bin/bench-wasm.txt

##### keep it in order

.PHONY: lint
lint: lint-go lint-format lint-proto breaking ## check style and schema rules of Go and protobuf

.PHONY: lint-go
lint-go: $(GOLANGCI)
	$(GOLANGCI) config verify
	$(GOLANGCI) run ./...
	$(if $(EXAMPLE_MODULES)$(TEST_MODULES),GOOS=wasip1 GOARCH=wasm $(GOLANGCI) run $(addprefix ./,$(sort $(dir $(wildcard examples/*/main.go testdata/guests/*/main.go)))))

.PHONY: lint-format
lint-format:
	@unformatted=$$($(GOFUMPT) -l .)
	if [[ -n $$unformatted ]]; then
		printf 'not formatted (make fmt does it):\n%s\n' "$$unformatted"
		exit 1
	fi
	echo "lint-format: every Go file is formatted"

.PHONY: lint-proto
lint-proto:
	$(if $(wildcard proto),$(BUF) lint,@echo "lint-proto: skipped, there is no proto directory")
	$(if $(wildcard proto),$(BUF) format --diff --exit-code proto)

# The schema is compared with the last release, or before the first one with the
# commit before. A commit that breaks the schema on purpose before the first
# release says so with a line `Breaking-Schema: <why>` in its message.
.PHONY: breaking
breaking: ## check that the schema still serves its users
	@base="$(AGAINST)"
	released=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
	base=$${base:-$${released:-HEAD~1}}
	why=$$(git log -1 --format='%(trailers:key=Breaking-Schema,valueonly)' | head -n 1)
	if ! git cat-file -e "$$base:proto" 2>/dev/null || [[ ! -d proto ]]; then
		echo "breaking: skipped, $$base or this tree has no proto directory"
	elif [[ -z $$released && -n $$why ]]; then
		echo "breaking: skipped, this commit breaks the schema on purpose: $$why"
	else
		rm -rf bin/breaking && mkdir -p bin/breaking
		git archive "$$base" proto thirdparty buf.yaml | tar -x -C bin/breaking
		echo "breaking: comparing with $$base"
		$(BUF) breaking --against bin/breaking
	fi

.PHONY: vuln
vuln: $(VULNCHECK) ## look up known vulnerabilities of what we call
	$(VULNCHECK) ./...

.PHONY: fmt
fmt: $(GOLANGCI) ## format Go and protobuf
	$(GOLANGCI) fmt
	$(GOFUMPT) -w .
	$(if $(wildcard proto),$(BUF) format -w proto)

.PHONY: generate
generate: ## write the Go code of proto/ anew
	$(BUF) format -w proto
	$(BUF) generate

# Generates beside the tree, so that a stale file without a source is seen too.
.PHONY: check-generated
check-generated: ## check that the generated code in the tree is what generate writes
	@if [[ ! -d proto ]]; then echo "check-generated: skipped, there is no proto directory"; exit; fi
	rm -rf bin/generated && mkdir -p bin/generated/have/proto bin/generated/want
	(find proto -name '*.pb.go' -o -name '*.connect.go') | tar -c -T - | tar -x -C bin/generated/have
	$(BUF) generate -o bin/generated/want
	if ! diff -ru bin/generated/have bin/generated/want; then
		echo "check-generated: the generated code is stale; run make generate and commit what changes"
		exit 1
	fi
	echo "check-generated: fresh"

.PHONY: clean
clean: ## remove what the other targets built, the data of the local Cassandra too
	$(if $(wildcard bin/cassandra),go run ./tools/cassandra/cmd stop)
	rm -rf bin testdata/guests/*.wasm

# The Go module of TinyGo lacks what lies in submodules; nothing of it is needed
# beside a system that has LLVM and wasi-libc. It stays outside of the tree, where
# nothing takes its sources for ours.
$(TINYGO)/bin/tinygo:
	source=$$(go mod download -json github.com/tinygo-org/tinygo@v$(TINYGO_VERSION) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	rm -rf $(TINYGO)
	mkdir -p $(dir $(TINYGO))
	cp -r "$$source" $(TINYGO)
	cd $(TINYGO)
	chmod -R u+w .
	mkdir -p src/net
	go build -mod=mod -tags llvm19 -o bin/tinygo .

# The version stands in the file name: a new one is built when the pin moves.
bin/tools/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(CURDIR)/bin/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv bin/tools/golangci-lint $@

$(BENCHSTAT):
	GOBIN=$(CURDIR)/bin/tools go install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)
	mv bin/tools/benchstat $@

bin/tools/govulncheck-$(GOVULNCHECK_VERSION):
	GOBIN=$(CURDIR)/bin/tools go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	mv bin/tools/govulncheck $@
