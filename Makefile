# The two commands are `make demo` and `make test`; each fetches what it needs first.

.PHONY: demo test learning test-full test-asan test-peers test-tensorboard test-kills test-loom test-tsan test-fuzz soak test-browser bench bench-parts deps lint doc book clean

CARGO ?= cargo
# libtorch's threads spin while they wait, which costs dearly where something else wants the same cores.
export OMP_WAIT_POLICY ?= passive

demo: deps  ## SFT -> reward model -> PPO on the embedded engine; exits non-zero if a threshold is missed
	$(CARGO) run --release -- demo

test: deps  ## every test, with libtorch and then the engine alone without it
	ci/test.sh

test-full: test lint doc test-asan test-peers test-tensorboard test-kills test-loom test-tsan test-fuzz test-browser learning  ## what a release needs

test-asan: deps  ## the border to TensorRT-LLM under AddressSanitizer and UBSan (GCC's)
	ci/asan.sh

test-peers: deps  ## what we write, read by `transformers` (makes a Python environment once)
	ci/peers.sh

test-tensorboard: deps  ## event files of whole runs, read by TensorBoard (makes a Python environment once)
	ci/tensorboard.sh

test-kills: deps  ## a run that is killed fifty times ends as one that was left alone
	ci/kills.sh

test-loom:  ## the queue's protocol, every interleaving
	ci/loom.sh

test-tsan:  ## the queue, the lease and the team of threads under ThreadSanitizer
	ci/tsan.sh

test-fuzz:  ## every parser on made-up input, 20 s each (needs cargo install cargo-fuzz)
	ci/fuzz.sh

soak: deps  ## a small asynchronous run for an hour (SOAK_MINUTES): memory, threads and files stay flat
	ci/soak.sh

test-browser: deps  ## the report and the live page in headless Chromium (needs the package chromium)
	ci/browser.sh

learning: deps  ## what learns from data, on one small task, beside its negative control: the table of docs/learning.md
	$(CARGO) run --release --example learning

bench: deps  ## the whole set, beside its peers where benches/peers/setup.sh has made them, into benches/results
	$(CARGO) build --release
	benches/bench.sh

bench-parts: deps  ## the parts by themselves: queue, scheduler, sampler, attention, products, advantages, passes
	$(CARGO) bench

lint: deps  ## formatting and clippy, warnings denied
	ci/fmt.sh
	ci/lint.sh

doc: deps
	ci/doc.sh

book:  ## the pages of docs/ as a book, into target/book (needs mdbook, ci/book.sh says which)
	ci/book.sh

deps: third_party/libtorch/fetched third_party/libclang/fetched  ## libtorch and libclang, pinned by hash, into third_party

third_party/libtorch/fetched: third_party/fetch_libtorch.py third_party/wheels.py third_party/libtorch.requirements
	@if [ -n "$(LIBTORCH)$(LIBTORCH_USE_PYTORCH)" ]; then \
		echo "using the libtorch that LIBTORCH or LIBTORCH_USE_PYTORCH names"; \
	else \
		python3 third_party/fetch_libtorch.py && touch $@; \
	fi

third_party/libclang/fetched: third_party/fetch_libclang.py third_party/wheels.py third_party/libclang.requirements
	@if [ -n "$(LIBCLANG_PATH)" ]; then \
		echo "using the libclang that LIBCLANG_PATH names"; \
	else \
		python3 third_party/fetch_libclang.py && touch $@; \
	fi

clean:
	$(CARGO) clean
