# Every command of the project. What it needs beyond Rust, Python and a Postgres server is installed
# by the targets themselves, pinned, under target/tools.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TOOLS := $(CURDIR)/target/tools
VENV := $(TOOLS)/venv/stamp
LOCALSTACK := $(TOOLS)/localstack/stamp
# LocalStack wants Python 3.13: what it imports came with that.
PYTHON_LOCALSTACK ?= $(shell for python in python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13.*/bin/python3.13; do \
    if "$$python" -c "" 2>/dev/null; then echo "$$python"; break; fi; done)
DEPLOY := $(TOOLS)/deploy/stamp
CHECKOV := $(TOOLS)/checkov/stamp
SAM := SAM_CLI_TELEMETRY=0 $(TOOLS)/deploy/bin/sam
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)
DENY := cargo deny --locked
FUZZ := --locked --package login-etl-fuzz
# What `-Zsanitizer` and cargo-fuzz ask of a nightly compiler, with the flags of a stable one.
FUZZ_RUSTFLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-, \
    level=4 inline-8bit-counters pc-table trace-compares)
BUILD := cargo lambda build --release --locked
HOST = $(shell rustc --print host-tuple)
LOCAL := python -m dev
LOCALSTACK_STACK := python -m deploy.localstack
PYTHON_CODE := --config dev/ruff.toml benches deploy dev tests

# Of a stack: `make deploy ENV=dev`.
WHERE = --config-env $(or $(ENV),$(error ENV=… is missing: dev, staging or prod))

# cargo-lambda, its zig and Python are those of the virtual environment.
export PATH := $(TOOLS)/venv/bin:$(CARGO_DENY)/bin:$(PATH)
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests
# The package is looked for here, wherever else its user lets cargo build.
export CARGO_TARGET_DIR := $(CURDIR)/target

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Seeing it work

.PHONY: run
run: build ## Send a hundred logins from a queue into Postgres, show what became of them, clean up
	@$(LOCAL) run

.PHONY: up
up: build ## Start the same and keep it running; print how to reach it
	@$(LOCAL) up

.PHONY: down
down: $(VENV) ## Stop what `up` started
	@$(LOCAL) down

.PHONY: send
send: $(VENV) ## Send each line of FILE=… to the queue that is up; with ENV=localstack, to its stack
ifeq ($(ENV),localstack)
	@$(LOCALSTACK_STACK) send
else
	@$(LOCAL) send "$(or $(FILE),$(error FILE=… is missing))"
endif

.PHONY: top
top: $(VENV) ## Show the figures of what is up, as they happen
	@$(LOCAL) top

.PHONY: report
report: $(VENV) ## Draw the figures of what is up, or of the last run, or of FILES=… with logs, as a page
	@$(LOCAL) report $(FILES)

.PHONY: watch
watch: $(VENV) ## Serve the function from its source, built again at every change, beside what is up
	@$(LOCAL) watch

.PHONY: invoke
invoke: $(VENV) ## Invoke the function that `watch` serves with EVENT=…, and print its answer
	@$(LOCAL) invoke "$(or $(EVENT),$(error EVENT=… is missing))"

# Making it

.PHONY: build
build: $(VENV) ## Build the release bootstrap and the migrate program, as they go to AWS
	@$(BUILD)

# The same Rust, tools and home folder give the same bytes, whenever and in whichever folder.
.PHONY: reproduce
reproduce: $(VENV) ## Build what is committed twice, in two folders, and compare the bytes
	@rm -rf target/reproduce
	@for folder in one the/other; do \
	    git clone --quiet . target/reproduce/$$folder; \
	    (cd target/reproduce/$$folder; CARGO_TARGET_DIR=$$PWD/target $(BUILD)); \
	done
	@for program in bootstrap migrate; do \
	    cmp target/reproduce/{one,the/other}/target/lambda/$$program/bootstrap; \
	    sha256sum target/reproduce/one/target/lambda/$$program/bootstrap; \
	done

# The processors as the template says it. Their other one's target is rustup's to install.
ARCH ?= x86_64 arm64
LIMIT_MIB := 8

# Under target/zip/<processor>/<program>, each with its checksum.
.PHONY: zip
zip: $(VENV) ## Zip both programs for ARCH=x86_64, arm64 or both; none may be 8 MiB or more
	@for processor in $(ARCH); do \
	    rustup --quiet target add "$${processor/arm64/aarch64}-unknown-linux-gnu"; \
	    $(BUILD) --output-format zip "--$${processor/_/-}" --lambda-dir "target/zip/$$processor"; \
	    for zip in target/zip/"$$processor"/*/bootstrap.zip; do \
	        bytes=$$(wc -c < "$$zip"); \
	        printf '%s  %d.%02d MiB\n' "$$zip" $$((bytes >> 20)) $$(((bytes & 0xfffff) * 100 >> 20)); \
	        ((bytes < $(LIMIT_MIB) << 20)) || { echo "It is too large." >&2; exit 1; }; \
	        (cd "$${zip%/*}"; sha256sum bootstrap.zip | tee bootstrap.zip.sha256); \
	    done; \
	done

.PHONY: test
test: build $(DEPLOY) ## Run every test: unit, doc, against Postgres, and from the queue to the table
	$(LOCAL) with-services cargo test --locked --workspace
	pytest tests/e2e
	python -m torture --seconds 10 --seed 1

.PHONY: test-localstack
test-localstack: build $(DEPLOY) $(if $(ENDPOINT),,$(LOCALSTACK)) ## Run the end-to-end tests on LocalStack (needs Python 3.13), or on a running one at ENDPOINT=…
	@$(if $(ENDPOINT),E2E_ENDPOINT_URL="$(ENDPOINT)") \
	    $(if $(DATABASE_HOST),E2E_DATABASE_HOST="$(DATABASE_HOST)") \
	    $(if $(DATABASE_LISTEN),E2E_DATABASE_LISTEN="$(DATABASE_LISTEN)") \
	    E2E_EMULATOR=localstack pytest tests/e2e

.PHONY: readme
readme: build ## Run the commands of the README's table, those that take long for less
	@python -m dev.checks.documents

.PHONY: python-localstack
python-localstack:
	@echo "$(PYTHON_LOCALSTACK)"

.PHONY: torture
torture: build ## Break everything for SECONDS=…, repeatable by SEED=…; demand nothing lost, doubled, leaked
	@python -m torture $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

.PHONY: check
check: fmt clippy doc python template compose pipeline unused versions test-names audit ## Check format, lints, documentation, templates, pipeline and dependencies

.PHONY: fmt
fmt:
	cargo fmt --all --check

.PHONY: clippy
clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: doc
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

.PHONY: python
python: $(VENV)
	ruff check --no-cache $(PYTHON_CODE)
	ruff format --no-cache --check $(PYTHON_CODE)
	shellcheck .ci/run dev/compose/initdb.d/*.sh

.PHONY: template
template: $(VENV)
	cfn-lint template.yaml deploy/registry.yaml
	hadolint deploy/Dockerfile

.PHONY: compose
compose: $(VENV)
	docker-compose --file dev/compose.yaml config --quiet

# What actionlint checks in shell commands, it asks shellcheck.
.PHONY: pipeline
pipeline: $(VENV)
	actionlint
	zizmor --offline --no-progress --quiet .

# checkov takes a condition for what the parameters' defaults make of it, so it sees the template twice.
.PHONY: validate
validate: template $(DEPLOY) $(CHECKOV) ## Check the template with sam, cfn-lint and checkov
	$(SAM) validate --lint --template template.yaml --region eu-central-1
	@mkdir -p target/validate
	sed '0,/Default: "false"/s//Default: "true"/' template.yaml > target/validate/with-database.yaml
	for template in template.yaml target/validate/with-database.yaml; do \
	    $(TOOLS)/checkov/bin/checkov --skip-download --quiet --compact --framework cloudformation --file $$template; \
	done

.PHONY: unused
unused: $(VENV)
	cargo shear --locked --deny-warnings

.PHONY: versions
versions: $(VENV)
	python -m dev.checks.versions

.PHONY: test-names
test-names: $(VENV)
	python -m dev.checks.test_names

# Advisories come from the network. Without it the rest is checked all the same, and that is said.
.PHONY: audit
audit: $(CARGO_DENY)
	$(DENY) check --hide-inclusion-graph bans licenses sources
	@if $(DENY) fetch db; then \
	    $(DENY) check --hide-inclusion-graph --disable-fetch advisories; \
	else \
	    echo "advisory database could not be fetched; advisories NOT checked (bans, licences and sources were)"; \
	fi

# Attacking it

# The targets share the SECONDS. An input that breaks one is kept in its corpus, for `make test` to replay
# from then on; one that is merely new stays in target/, unless KEEP=1 adds what covers most.
.PHONY: fuzz
fuzz: ## Fuzz the way from an event to its row for SECONDS=60; KEEP=1 enlarges the corpus
	@RUSTFLAGS="$(FUZZ_RUSTFLAGS)" cargo build --quiet --profile fuzz $(FUZZ) --features libfuzzer-sys --target $(HOST)
	@for target in event body; do \
	    fuzz="target/$(HOST)/fuzz/fuzz-$$target" kept="fuzz/corpus/$$target" new="target/fuzz/$$target"; \
	    mkdir -p "$$new"; \
	    "$$fuzz" -max_total_time=$$(($(or $(SECONDS),60) / 2)) -timeout=5 -max_len=4096 -print_final_stats=1 \
	        -dict=fuzz/json.dict -artifact_prefix="$$kept/" "$$new" "$$kept" 2>&1 \
	        | sed '/^#.*\(NEW\|REDUCE\|RELOAD\)/d; /^###### Rec/,/^###### End/d'; \
	    if [[ -n "$(KEEP)" ]]; then "$$fuzz" -set_cover_merge=1 -use_counters=0 -verbosity=0 "$$kept" "$$new"; fi; \
	done

# Measuring it

.PHONY: bench
bench: build ## Measure the speed beside a bare COPY and Python; QUICK=1 for a look, ONLY=… for a part
	@cargo bench --quiet --locked --bench stages -- --noplot $(if $(QUICK),--quick)
	@python -m benches $(if $(QUICK),--quick) $(ONLY)

.PHONY: bench-instructions
bench-instructions: $(VENV) ## Count the instructions of the pure stages, with valgrind
	@cargo bench --quiet --locked --bench instructions \
	    --config "target.'cfg(all())'.runner = ['python', '-m', 'benches.instructions']"

# Running it in AWS

.PHONY: deploy
deploy: $(VENV) $(DEPLOY) ## Build and deploy ENV=dev, staging or prod, as samconfig.toml says; or ENV=localstack
ifeq ($(ENV),localstack)
	@$(BUILD)
	@$(LOCALSTACK_STACK) deploy
else
	$(SAM) build $(WHERE)
	$(SAM) deploy $(WHERE) --no-fail-on-empty-changeset $(if $(CI),--no-confirm-changeset)
endif

.PHONY: smoke
smoke: $(VENV) ## Send messages through the queue of ENV=…, and see that it works
	@python -m deploy.smoke login-etl-$(or $(ENV),$(error ENV=… is missing: dev, staging or prod))

.PHONY: logs
logs: $(DEPLOY) ## Follow what the functions of ENV=… log
	$(SAM) logs $(WHERE) --tail

.PHONY: redrive
redrive: $(VENV) ## Have the dead letters of ENV=… written; those that are bad stay where they are
	@python -m deploy.operate redrive $(ENV)

.PHONY: rotate
rotate: $(VENV) ## Give the function of ENV=… a new password for the database
	@python -m deploy.operate rotate $(ENV)

.PHONY: delete
delete: $(VENV) $(DEPLOY) ## Delete the stack of ENV=…; the salt, its key and the data stay
ifeq ($(ENV),localstack)
	@$(LOCALSTACK_STACK) delete
else
	$(SAM) delete $(WHERE)
endif

IMAGE := target/image/$(ARCH)
TAG = $(REGISTRY)/login-etl:$(shell git rev-parse HEAD)-$(ARCH)

# Of one architecture and without a provenance, because Lambda takes no index of images.
.PHONY: image
image: $(VENV) ## Build the function as a container image for ARCH=x86_64 or arm64; needs Docker
	$(BUILD) --bin bootstrap --$(subst _,-,$(ARCH)) --lambda-dir $(IMAGE)
	docker buildx build --load --provenance=false --platform linux/$(ARCH:x86_64=amd64) \
	    --tag login-etl:$(ARCH) --file deploy/Dockerfile $(IMAGE)/bootstrap

.PHONY: image-registry
image-registry: ## Create the registry for images, in the account of the AWS CLI
	aws cloudformation deploy --stack-name login-etl-images --template-file deploy/registry.yaml \
	    --no-fail-on-empty-changeset

.PHONY: image-push
image-push: image ## Push the image to REGISTRY=…, tagged with the commit
	docker tag login-etl:$(ARCH) $(or $(and $(REGISTRY),$(TAG)),$(error REGISTRY=… is missing))
	docker push $(TAG)

# Tools

$(VENV): dev/requirements.txt
$(DEPLOY): deploy/requirements.txt
$(CHECKOV): dev/requirements-checkov.txt
$(VENV) $(DEPLOY) $(CHECKOV):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; PYTHON=… names one." if sys.version_info < (3, 11) else 0)'
	@echo "Installing the tools of $< into $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(LOCALSTACK): $(shell find dev/localstack -name '*.txt' -or -path '*/executor/*' -type f)
	@$(or $(PYTHON_LOCALSTACK),$(error LocalStack wants Python 3.13, and there is none: PYTHON_LOCALSTACK=… names one)) -m venv --clear $(@D)
	@echo "Installing LocalStack into $(@D)"
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement dev/localstack/requirements.txt
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation dev/localstack/executor
	@touch $@

# Without the target folder of the project, which another cargo may hold locked.
$(CARGO_DENY):
	env -u CARGO_TARGET_DIR cargo install --quiet --locked --root $@ --version $(CARGO_DENY_VERSION) cargo-deny
