# log_capturer: everything one does with the repository. `make` lists it.
# Needed: Go (go.mod says which), GNU make, bash. `make test` also wants a C
# compiler (the race detector) and, on Debian and Ubuntu as root, installs what
# it needs of Docker (scripts/install-test-deps.sh).

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go

# The go command's stamp of the commit fails the build where git distrusts the
# directory's owner (containers, CI): asked for only where git answers.
export GOFLAGS := $(strip $(filter-out -buildvcs%,$(GOFLAGS)) -buildvcs=false)

# A checkout of its own only: in an unpacked archive below somebody else's
# repository git would describe that one.
VERSION ?= $(shell test -e .git && git describe --tags --always --dirty 2>/dev/null || echo dev)

VCS_STAMP = $(shell test -e .git && git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo true || echo false)

FUZZTIME     ?= 30s
COVERAGE_MIN ?= 70
# Unit tests must cover what ships; a stand-in for tests does not.
COVER_PKGS    = $(shell $(GO) list ./internal/... | grep -v 'test$$')
# Not by `go list`: files behind build tags are to be formatted, too.
GO_FILES      = find . \( -path ./bin -o -path ./var -o -path ./.git \) -prune -o -name '*.go' -print0

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z0-9_.\/-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the agent: bin/log_capturer
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(VCS_STAMP) -ldflags '-X main.version=$(VERSION)' -o bin/log_capturer ./cmd/log_capturer

.PHONY: test
test: ## all tests, as CI runs them: unit, real Docker, real log store
	@GO='$(GO)' exec scripts/test.sh

.PHONY: test-unit
test-unit: ## the tests that need neither Docker nor a log store
	$(GO) test -race -shuffle=on -timeout 10m $$($(GO) list ./... | grep -v '/tests\(/\|$$\)')

# Some minutes more the first time, for the engine is built from its source: not
# part of `make test`.
.PHONY: test-engines
test-engines: build victoria-logs engine29 ## the tests with a real Docker, on Engine 29; ARGS: more for go test
	@GO='$(GO)' ARGS='$(value ARGS)' exec scripts/test-engines.sh

.PHONY: lint
lint: bin/golangci-lint vet lint-sleep ## golangci-lint with .golangci.yml, and go vet
	bin/golangci-lint run ./...

# time.Sleep in a test is a wait that is too short one day, except under
# testing/synctest, where the clock is not the world's. forbidigo sees the rest.
.PHONY: lint-sleep
lint-sleep:
	@sleeping=$$({ $(GO_FILES) | xargs -0 grep -l 'time\.Sleep(' | grep '_test\.go$$' | xargs -r grep -L '"testing/synctest"'; } || true); \
	if [ -n "$$sleeping" ]; then printf 'time.Sleep without testing/synctest:\n%s\n' "$$sleeping" >&2; exit 1; fi

# Needs the network, and says so: its script has the statuses. make's own is 2 for
# both "vulnerable" and "could not check"; the last line tells.
.PHONY: vulncheck
vulncheck: bin/govulncheck ## govulncheck: clean, vulnerable, or could not check (GOVULNDB: another database)
	PATH="$$($(GO) env GOROOT)/bin:$$PATH" scripts/vulncheck.sh

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: fmt
fmt: ## gofmt every file
	$(GO_FILES) | xargs -0 gofmt -l -w -s

.PHONY: fmt-check
fmt-check: ## fail when a file is not as gofmt would have it
	@unformatted=$$($(GO_FILES) | xargs -0 gofmt -l -s); \
	if [ -n "$$unformatted" ]; then \
		printf 'not formatted; run "make fmt":\n%s\n' "$$unformatted" >&2; exit 1; \
	fi

.PHONY: cover
cover: ## unit-test coverage of ./internal; fails below COVERAGE_MIN percent
	$(GO) test -timeout 10m -coverprofile=coverage.out $(COVER_PKGS)
	@$(GO) tool cover -func=coverage.out | awk -v min=$(COVERAGE_MIN) '\
		/^total:/ {sub("%", "", $$NF); total = $$NF; seen = 1} \
		END { \
			if (!seen) {print "coverage.out has no total"; exit 1} \
			printf "total coverage: %s %% (at least %s %%)\n", total, min; \
			exit (total + 0 < min + 0)}'

# What the agent costs, beside the floor and beside other agents. The machine should
# have nothing else to do; it takes an hour and a half with peers, -short two minutes.
.PHONY: bench
bench: build bin/bench bin/bench-floor ## measure the agent, the floor and the peers that are built; ARGS: -short, -run steady-1000, ... (-h)
	bin/bench $(ARGS)

.PHONY: bench-report
bench-report: build bin/bench bin/bench-floor ## bench, with the results written to docs/reports/performance.md; ARGS as there
	@mkdir -p docs/reports
	bin/bench -report docs/reports/performance.md -json docs/reports/performance.json $(ARGS)

.PHONY: bin/bench bin/bench-floor
bin/bench:
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./bench
bin/bench-floor:
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./bench/floor

# Some minutes the first time. The collector's sources are made anew each time.
.PHONY: bench-peers
bench-peers: bin/vlagent bin/otelcol-src/otelcol ## build the agents that `make bench` measures beside ours

bin/vlagent: tools/vlagent/go.mod tools/vlagent/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/vlagent -trimpath -ldflags '-s -w' -o ../../$@ github.com/VictoriaMetrics/VictoriaLogs/app/vlagent
	@touch $@

bin/otelcol-builder: tools/otelbuilder/go.mod tools/otelbuilder/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/otelbuilder -trimpath -ldflags '-s -w' -o ../../$@ go.opentelemetry.io/collector/cmd/builder
	@touch $@

bin/otelcol-src/otelcol: bin/otelcol-builder tools/otelbuilder/builder-config.yaml
	cd tools/otelbuilder && CGO_ENABLED=0 PATH="$$($(GO) env GOROOT)/bin:$$PATH" ../../bin/otelcol-builder --config builder-config.yaml --ldflags '-s -w'
	@touch $@

# PKG=./internal/loki for one package; OLD=FILE compares with what was measured before.
.PHONY: bench-micro
bench-micro: PKG ?= ./internal/... ./bench/...
bench-micro: COUNT ?= 6
bench-micro: BENCH ?= .
bench-micro: bin/benchstat ## benchmarks of parser, tail, encoder, acks: COUNT (6) times, summed up; PKG, BENCH, OLD=FILE to compare with
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 2h $(PKG) | tee bin/bench-micro.txt
	bin/benchstat $(OLD) bin/bench-micro.txt

bin/benchstat: tools/benchstat/go.mod tools/benchstat/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/benchstat -trimpath -ldflags '-s -w' -o ../../$@ golang.org/x/perf/cmd/benchstat
	@touch $@

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s) each
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' scripts/fuzz.sh

.PHONY: run
run: ## build and run it here: with a local log store, unless LOKI_URL is set
	@GO='$(GO)' exec scripts/run.sh

.PHONY: test-deps
test-deps: ## look for (as root on Debian and Ubuntu: install) what tests need of Docker
	scripts/install-test-deps.sh

# The tools' modules are their own: their dependencies clash, with each other's
# too, and none may reach the product. `go build` leaves the time of an
# up-to-date file as it is, hence the touch.
.PHONY: victoria-logs
victoria-logs: bin/victoria-logs ## build the log store that tests and `make run` use

bin/victoria-logs: tools/victorialogs/go.mod tools/victorialogs/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/victorialogs -trimpath -ldflags '-s -w' -o ../../$@ github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs
	@touch $@

bin/golangci-lint: tools/lint/go.mod tools/lint/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/lint -trimpath -ldflags '-s -w' -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/govulncheck: tools/vulncheck/go.mod tools/vulncheck/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/vulncheck -trimpath -ldflags '-s -w' -o ../../$@ golang.org/x/vuln/cmd/govulncheck
	@touch $@

.PHONY: engine29
engine29: bin/engine29/dockerd bin/engine29/runc ## build the Docker engine of `make test-engines`

bin/engine29/dockerd: tools/dockerd/go.mod tools/dockerd/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/dockerd -trimpath -tags exclude_graphdriver_btrfs -ldflags '-s -w' -o ../../$@ github.com/moby/moby/v2/cmd/dockerd
	@touch $@

# The one tool that needs a C compiler: it enters namespaces before Go starts.
bin/engine29/runc: tools/runc/go.mod tools/runc/go.sum
	CGO_ENABLED=1 $(GO) build -C tools/runc -trimpath -ldflags '-s -w' -o ../../$@ github.com/opencontainers/runc
	@touch $@

.PHONY: clean
clean: ## remove what was built; what `make run` keeps in var/ stays
	rm -rf bin coverage.out

# The figures of docs/reports/streaming.md: half an hour, and no
# part of `make test`. The machine should have nothing else to do.
.PHONY: measure-streaming
measure-streaming: build test-deps ## measure what streaming costs beside reading files; ARGS: more for go test
	LOG_CAPTURER_MEASURE=1 LOG_CAPTURER_REQUIRE_DOCKER=1 PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' \
		$(GO) test ./tests/e2e -run '^TestMeasureStreaming$$' -v -count=1 -timeout 45m $(ARGS)

# The machine should have nothing else to do. METHOD=streaming: as it was done before.
# REPORT: a Markdown file for the figures.
.PHONY: load-test
load-test: RATE ?= 1000
load-test: ## 50 containers write RATE (1000) lines/s in all: delivery, CPU, memory, latency
	GO='$(GO)' METHOD='$(or $(METHOD),files)' REPORT='$(REPORT)' exec tests/load_test.sh $(RATE)

# REPORT: a Markdown file for the figures.
.PHONY: measure-leaks
measure-leaks: MINUTES ?= 30
measure-leaks: build test-deps ## watch an agent for MINUTES (30) while containers come and go: does it grow?
	LOG_CAPTURER_LEAKS_MINUTES='$(MINUTES)' REPORT='$(abspath $(REPORT))' LOG_CAPTURER_REQUIRE_DOCKER=1 PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" \
		LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' $(GO) test ./tests/e2e -run '^TestLeaks$$' -v -count=1 -timeout "$$(( $(MINUTES) + 15 ))m"

# Forty minutes, and no part of `make test`. The machine should have nothing else to do.
# VERSION is that of the beginning: the report itself makes the tree dirty.
.PHONY: performance-report
performance-report: MINUTES ?= 30
performance-report: REPORT = docs/reports/hybrid-monitor-performance.md
performance-report: ## measure before and after and leaks (MINUTES: 30); writes docs/reports/hybrid-monitor-performance.md
	$(MAKE) --no-print-directory load-test METHOD=streaming REPORT='$(REPORT)' VERSION='$(VERSION)'
	$(MAKE) --no-print-directory load-test METHOD=files REPORT='$(REPORT)' VERSION='$(VERSION)'
	$(MAKE) --no-print-directory measure-leaks MINUTES='$(MINUTES)' REPORT='$(REPORT)' VERSION='$(VERSION)'

# The agent killed, frozen, its store failing, dockerd killed, disks full: ten
# minutes. ARGS: more for the program, such as -run store,kill -seed 7 (-list: all).
.PHONY: fault-test
fault-test: build test-deps ## do to the agent what can go wrong, and account for every line; ARGS: more flags
	LOG_CAPTURER_REQUIRE_DOCKER=1 PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' \
		$(GO) run ./tests/fault_test $(ARGS)

.PHONY: soak
soak: DURATION ?= 1h
soak: CONTAINERS ?= 100
soak: REPORT ?= docs/reports/soak.md
soak: build test-deps ## CONTAINERS (100) that come and go for DURATION (1h), a fault every few seconds; writes REPORT (docs/reports/soak.md)
	LOG_CAPTURER_REQUIRE_DOCKER=1 PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' \
		$(GO) run ./tests/fault_test -duration '$(DURATION)' -containers '$(CONTAINERS)' -report '$(REPORT)' $(ARGS)

# What the image consists of, and the image, with the builder that docker has.
CA_BUNDLE ?= /etc/ssl/certs/ca-certificates.crt
IMAGE     ?= log_capturer

.PHONY: image
image: build ## build the container image IMAGE (log_capturer), from scratch
	@mkdir -p bin/image
	$(GO) run ./scripts/rootfs -ca '$(CA_BUNDLE)' -o bin/image/rootfs.tar
	docker build --tag '$(IMAGE)' --build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse --verify -q HEAD 2>/dev/null || echo unknown)" .

.PHONY: deb
deb: bin/nfpm ## build the Debian package for this machine: bin/release
	GO='$(GO)' ARCHS="$$($(GO) env GOARCH)" exec scripts/release.sh

.PHONY: release
release: bin/nfpm ## archives and packages for linux amd64 and arm64: bin/release
	@GO='$(GO)' exec scripts/release.sh

bin/nfpm: tools/nfpm/go.mod tools/nfpm/go.sum
	CGO_ENABLED=0 $(GO) build -C tools/nfpm -trimpath -ldflags '-s -w' -o ../../$@ github.com/goreleaser/nfpm/v2/cmd/nfpm
	@touch $@

# Some minutes, most of them for compiling: not part of `make test`.
.PHONY: test-packaging
test-packaging: build test-deps victoria-logs bin/nfpm ## test image, unit, package, release, Compose and Kubernetes
	LOG_CAPTURER_REQUIRE_DOCKER=1 LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" \
		$(GO) test -tags packaging -count=1 -timeout 20m ./tests/packaging
	cd tools/manifests && $(GO) vet ./... && $(GO) test -count=1 ./...

# A seed that fails prints how it is replayed. `make test` runs as many.
.PHONY: simulate
simulate: SEEDS ?= 20000
simulate: FROM  ?= 1
simulate: ## the agent under a simulated Docker, store, disk and clock: SEEDS (20000) seeds from FROM (1) on
	$(GO) test ./internal/simulation -run '^TestSimulation$$' -count=1 -timeout 60m -v -sim.from=$(FROM) -sim.seeds=$(SEEDS)

# A module of its own (what drives the browser is large), and a browser, which on
# Debian and Ubuntu `apt-get install chromium` gives: not part of `make test`.
# SHOTS: a directory to keep pictures of the pages in.
.PHONY: test-browser
test-browser: build ## the status page in a real Chromium; SHOTS: a directory for pictures
	export LOG_CAPTURER_BIN='$(CURDIR)/bin/log_capturer' PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin" LOG_CAPTURER_SCREENSHOTS='$(abspath $(SHOTS))'; \
	cd tests/browser && $(GO) vet ./... && $(GO) test -count=1 -timeout 15m ./...
