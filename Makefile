# make              build/kac, build/libkac.a and build/libkac.so
# make demo         installs what is missing, builds, designs promoters with six algorithms
# make test         installs what is missing, builds, passes the tests; last line: the total
# make emu-test     the CUDA kernels on the emulator of tests/emu, no GPU needed; part of make test
# make check        everything a change must pass; make fuzz, make nightly: the long forms
# make cluster-test the job files on a private Slurm, and the container; part of make nightly
# make bench        speed
# make bundle       build/bundle, a folder that runs on any x86-64 Linux; make gpu-check tests a GPU
# make install PREFIX=/usr/local DESTDIR=
# make MODE=asan    other builds: debug asan tsan fuzz, each in its own folder
# make emu          build/release/emu/kac, whose device cuda:0 is that emulator
# make rdkit        build/release/rdkit_properties.so, where RDKit's headers are (docs/molecules.md)
# make info         what was found; by hand: CC= CFLAGS= OMP=0 CUDA=0 MPI=0 MPICC= RDKIT=PREFIX

MODE  ?= release
BUILD ?= build/$(MODE)
# gcc's OpenMP gives ThreadSanitizer false alarms, and only clang has a fuzzer
ifeq ($(origin CC),default)
  CC := $(if $(filter tsan fuzz,$(MODE)),clang,gcc)
endif
OMP    ?= 1
NVCC   ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA   ?= $(if $(NVCC),1,0)
CXX    := $(if $(filter clang,$(CC)),clang++,g++)
MPICC  ?= $(shell command -v mpicc)
MPI    ?= $(if $(MPICC),1,0)
# where include/rdkit, include/boost and share/RDKit are; 0: left out
RDKIT  ?= /usr
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
MAKEFLAGS += --no-print-directory

# ---- flags ----------------------------------------------------------------------------
sanitize    := -fno-sanitize-recover=all -fno-omit-frame-pointer
opt.release := -O3 -g -DNDEBUG
opt.debug   := -O0 -g3
opt.asan    := -O1 -g -fsanitize=address,undefined $(sanitize)
opt.tsan    := -O1 -g -fsanitize=thread
opt.fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined $(sanitize)
# no fuzzer reaches the kernels, and clang takes minutes to instrument them
opt_simd.fuzz := -fno-sanitize=all
opt := $(or $(opt.$(MODE)),$(error MODE=$(MODE): want release, debug, asan, tsan or fuzz))

std  := -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno
warn := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
        -Wcast-qual -Wvla -Wformat=2 -Wconversion -Wdouble-promotion -Wundef
cflags := $(std) $(opt) $(warn) -fPIC -fvisibility=hidden -MMD -MP \
          $(if $(filter 1,$(OMP)),-fopenmp,-Wno-unknown-pragmas) $(CFLAGS)
link   := $(cflags) $(LDFLAGS)
libs   := -lyaml -ljansson -lm -ldl $(LDLIBS)

# what C++ compiles: the kernels' sources for the emulator, with the host's fma and assertions
emu_opt  := $(if $(filter release,$(MODE)),-O2 -g,$(opt))
cxxflags := -x c++ -std=c++20 -march=native -ffp-contract=off -fno-math-errno $(emu_opt) -fPIC \
            -fvisibility=hidden -MMD -MP -Wall -Wextra -Wshadow -Wno-missing-field-initializers \
            $(if $(filter 1,$(OMP)),-fopenmp)
cxxlink  := $(emu_opt) $(if $(filter 1,$(OMP)),-fopenmp)
# and nvcc: code of sm_80, sm_90, and PTX for what comes after
archs    := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
            -gencode arch=compute_90,code=compute_90
nvflags  := -std=c++20 -O3 -DNDEBUG -t 2 -fmad=false -MMD -MP \
            -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-missing-field-initializers
# not among the flags whose change rebuilds, so that the same objects serve with and without them
late     := $(if $(WERROR),-Werror) $(LATE)
nverror  := $(if $(WERROR),-Werror all-warnings -Xcompiler -Werror)

# ---- sources --------------------------------------------------------------------------
# kernels/X_simd.c is compiled once for each instruction set; simd.h names its functions
c    := $(filter-out %_simd.c host/cli/% host/ranks/mpi.c,$(wildcard kernels/*.c host/*/*.c))
simd := $(wildcard kernels/*_simd.c)
isas := portable $(if $(filter x86_64 amd64,$(shell uname -m)),avx2 avx512)
isa.portable :=
isa.avx2     := -mavx2 -mfma
isa.avx512   := -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma

obj   := $(c:%.c=$(BUILD)/%.o) $(foreach i,$(isas),$(simd:%.c=$(BUILD)/%.$i.o))
cli   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard host/cli/*.c))
unit  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/test_*.c))
race  := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/run_*.c))
fuzz  := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz_*.c))
bench := $(patsubst %.c,$(BUILD)/%,$(wildcard benchmarks/bench_*.c))

version := $(shell sed -n '/kac_version/,/}/s/.*"\(.*\)".*/\1/p' kernels/base.c)
soname  := libkac.so.$(firstword $(subst ., ,$(version)))
lib     := $(BUILD)/libkac.a
cu      := $(wildcard kernels/*_cuda.cu)
mpi     := $(if $(filter 1,$(MPI)),$(BUILD)/libkac_mpi.so)
cuda    := $(if $(filter 1,$(CUDA)),$(BUILD)/libkac_cuda.so)
fake    := $(BUILD)/tests/libnccl_fake.so
emu     := $(addprefix $(BUILD)/emu/,libkac_cuda.so kac tests/unit tests/libnccl_fake.so tests/mistakes)
fragments := $(wildcard $(RDKIT)/share/RDKit/Contrib/SA_Score/fpscores.pkl.gz)
rdkit   := $(if $(and $(wildcard $(RDKIT)/include/rdkit/GraphMol/ROMol.h),$(wildcard $(RDKIT)/include/boost/config.hpp),$(fragments)),$(RDKIT))
plugins := $(BUILD)/share.so $(BUILD)/sticky.so $(addprefix $(BUILD)/tests/plugin_,host.so queue.so first.so later.so other.so) \
           $(if $(filter release,$(MODE)),$(if $(rdkit),$(BUILD)/rdkit_properties.so $(BUILD)/tests/properties))
made    := $(lib) $(BUILD)/$(soname) $(BUILD)/kac $(if $(filter release debug asan,$(MODE)),$(mpi)) $(if $(filter release,$(MODE)),$(cuda))

.DELETE_ON_ERROR:
.PHONY: all programs rdkit emu demo test emu-test check checks format format-check tidy scripts-check race race-programs \
        fuzz fuzz-programs mutations cluster-test tools-test nightly bench bundle gpu-check install info clean FORCE
all: $(made) $(if $(filter build/release,$(BUILD)),build/kac build/libkac.a build/libkac.so)
programs: all $(BUILD)/tests/unit $(BUILD)/tests/make_models $(BUILD)/tests/worker $(BUILD)/tests/molecules $(plugins) $(if $(filter release asan,$(MODE)),$(emu)) \
          $(if $(filter release,$(MODE)),$(if $(cuda),$(BUILD)/tests/curand))
emu: $(emu)

# ---- rules; the include path is the layer rule ----------------------------------------
host := -Iinclude -Ikernels $(addprefix -Ihost/,chemistry process network reward step ranks files validate)
$(BUILD)/kernels/%.o:  inc = -Iinclude -Ikernels
$(BUILD)/host/%.o:     inc = $(host)
$(BUILD)/host/cli/%.o: inc = -Iinclude
$(BUILD)/benchmarks/%.o: inc = $(host) -Itests
$(BUILD)/tests/%.o:    inc = $(host) -Itests $(if $(filter release,$(MODE)),-O1) # compiled in a third of the time

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(cflags) $(late) $(inc) -c $< -o $@
define simd_rule
$(BUILD)/%_simd.$1.o: %_simd.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$(CC) $(cflags) $(late) -Iinclude -Ikernels $(isa.$1) $(opt_simd.$(MODE)) -DKAC_SIMD=$1 -DKAC_SIMD_$1=1 -c $$< -o $$@
endef
$(foreach i,$(isas),$(eval $(call simd_rule,$i)))

$(lib): $(obj)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/$(soname): $(obj)
	$(CC) $(link) -shared -Wl,-soname,$(soname) $^ -o $@ $(libs)
$(BUILD)/kac: $(cli) $(lib)
	$(CC) $(link) $^ -o $@ $(libs)
$(BUILD)/libkac_mpi.so: host/ranks/mpi.c $(BUILD)/flags
	OMPI_CC='$(CC)' MPICH_CC='$(CC)' $(MPICC) $(link) $(late) -Iinclude -Ikernels -shared $< -o $@
$(BUILD)/%.o: %.cu $(BUILD)/nvflags
	@mkdir -p $(@D)
	$(NVCC) $(nvflags) $(archs) $(nverror) -Iinclude -Ikernels -c $< -o $@
$(BUILD)/kernels/cnn1d_resident_cuda.o $(BUILD)/kernels/group_conv_cuda.o: archs := -gencode arch=compute_90a,code=sm_90a
$(BUILD)/libkac_cuda.so: $(cu:%.cu=$(BUILD)/%.o)
	$(NVCC) $(archs) -shared -cudart static $^ -o $@
$(BUILD)/tests/curand: tests/curand.cu kernels/rng.h $(BUILD)/nvflags
	@mkdir -p $(@D)
	$(NVCC) $(filter-out -MMD -MP,$(nvflags)) $(archs) $(nverror) -Iinclude -Ikernels $< -cudart static -o $@
# the emulator's library and, beside it so that they find it, the programs; a program looks where
# its own name is, so these are no symbolic links
$(BUILD)/emu/%.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(cxxflags) $(late) -Iinclude -Ikernels -Itests/emu -c $< -o $@
$(BUILD)/emu/tests/emu/emu.o: tests/emu/emu.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(cxxflags) $(late) -c $< -o $@
$(BUILD)/emu/tests/mistakes: $(BUILD)/emu/tests/emu/mistakes.o $(BUILD)/emu/tests/emu/emu.o
	$(CXX) $(cxxlink) $^ -o $@
$(BUILD)/emu/libkac_cuda.so: $(cu:%.cu=$(BUILD)/emu/%.o) $(BUILD)/emu/tests/emu/emu.o
	$(CXX) $(cxxlink) -shared $^ -o $@
$(addprefix $(BUILD)/emu/,kac tests/unit tests/libnccl_fake.so): $(BUILD)/emu/%: $(BUILD)/%
	@mkdir -p $(@D)
	@ln -f $< $@
$(BUILD)/tests/unit: $(unit) $(lib) | $(fake)
	$(CC) $(link) $^ -o $@ -lcriterion $(libs)
# NCCL without GPUs, for tests
$(fake): tests/fake_nccl.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(filter-out -fopenmp -MMD -MP,$(link)) $(late) -shared $< -o $@
$(race) $(bench) $(BUILD)/tests/make_models $(BUILD)/tests/worker $(BUILD)/tests/molecules: %: %.o $(lib)
	$(CC) $(link) $^ -o $@ $(libs)
# plug-ins, examples in C and one for tests in C++
$(BUILD)/share.so $(BUILD)/sticky.so: $(BUILD)/%.so: tools/plugins/%.c include/kac_plugin.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(filter-out -fopenmp -MMD -MP,$(link)) $(late) -Iinclude -shared $< -o $@ -lm
plugin_cxx = $(CXX) $(opt) -std=c++20 -Wall -Wextra $(late) -fPIC -fvisibility=hidden -Iinclude -shared
$(BUILD)/tests/plugin_%.so: tests/plugin.cc include/kac_plugin.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(plugin_cxx) $(plugin_$*) $< -o $@
plugin_queue := -DPLUGIN_QUEUES
plugin_first := -DPLUGIN_VERSION=1
plugin_later := -DPLUGIN_VERSION=3
plugin_other := -DPLUGIN_SYMBOL=another
# by RDKit, whose headers may warn and whose table of fragments is made a part of it
rdkit_cxx = $(CXX) $(opt) -std=c++20 -Wall -Wextra -Wshadow -Wconversion $(late) -fPIC -fvisibility=hidden \
            $(if $(filter 1,$(OMP)),-fopenmp,-Wno-unknown-pragmas) -DKAC_FRAGMENTS='"$(BUILD)/rdkit_fragments"' \
            -Iinclude -Itools/plugins -isystem $(rdkit)/include/rdkit -idirafter $(rdkit)/include
rdkit_libs = -L$(rdkit)/lib $(if $(filter-out /usr,$(rdkit)),-Xlinker -rpath -Xlinker $(rdkit)/lib) $(addprefix -lRDKit,ChemTransforms Descriptors Fingerprints SubstructMatch SmilesParse GraphMol DataStructs RDGeneral)
$(BUILD)/rdkit_properties.so $(BUILD)/tests/properties: $(wildcard tools/plugins/rdkit_*.cc tools/plugins/rdkit_*.h) include/kac_plugin.h $(BUILD)/rdkit_fragments $(BUILD)/flags
$(BUILD)/rdkit_properties.so: tools/plugins/rdkit_properties.cc
	@mkdir -p $(@D)
	$(rdkit_cxx) -shared $< -o $@ $(rdkit_libs)
$(BUILD)/tests/properties: tests/properties.cc
	@mkdir -p $(@D)
	$(rdkit_cxx) $< -o $@ $(rdkit_libs)
$(BUILD)/rdkit_fragments: tools/plugins/rdkit_fragments.py $(fragments)
	@mkdir -p $(@D)
	python3 $< $(fragments) $@
rdkit:
	@$(if $(rdkit),$(MAKE) $(BUILD)/rdkit_properties.so,echo 'make: no RDKit in $(RDKIT): want librdkit-dev, libboost-dev and rdkit-data, or RDKIT=PREFIX' >&2; exit 2)
$(fuzz): %: %.o $(lib)
	$(CC) $(link) -fsanitize=fuzzer $^ -o $@ $(libs)

build/kac build/libkac.a: build/%: build/release/%
	@ln -sf release/$* $@
build/libkac.so: build/release/$(soname)
	@ln -sf release/$(soname) $@

$(BUILD)/flags: FORCE # changes when a flag does, and everything rebuilds
	@mkdir -p $(@D)
	@echo '$(CC) $(link) $(libs) $(cxxflags)' | cmp -s - $@ || \
	  echo '$(CC) $(link) $(libs) $(cxxflags)' >$@
$(BUILD)/nvflags: FORCE
	@mkdir -p $(@D)
	@echo '$(NVCC) $(nvflags) $(archs)' | cmp -s - $@ || echo '$(NVCC) $(nvflags) $(archs)' >$@

# ---- demo and tests; what is missing is installed first, so they build in a second make ----
demo:
	@CC='$(CC)' tools/install-deps build
	@$(MAKE) CUDA=0 all # the demo runs on the CPU
	@configs/demo.sh $(BUILD)/kac

test:
	@CC='$(CC)' tools/install-deps test
	@$(if $(cuda),$(MAKE) CUDA=$(CUDA) WERROR=1 $(cuda)) # CUDA code must not even warn
	@$(MAKE) programs
	@tests/run-all $(BUILD)

emu-test:
	@CC='$(CC)' tools/install-deps test
	@$(MAKE) programs
	@tests/run-all $(BUILD) tests/test_emu.sh tests/test_emu_orders.sh

# ---- checks ---------------------------------------------------------------------------
src     := $(wildcard include/*.h kernels/*.[ch] kernels/*.cu kernels/*.cuh host/*/*.[ch] tests/*.[ch] tests/*.cc tests/emu/* tools/*.c tools/plugins/*.c tools/plugins/*.cc tools/plugins/*.h benchmarks/*.[ch])
# run-scaling is Python
scripts := tools/install-deps tools/bundle tools/gpu-check tools/workers/template.sh .ci/run $(wildcard tests/run-* benchmarks/run-cpu benchmarks/run-gpu tests/*.sh tests/cluster/* docker/slurm/*.sbatch configs/*.sh)

format:
	clang-format -i $(src)
format-check:
	clang-format --dry-run -Werror $(src)
	! grep -n '#include "\.\./' $(src)
scripts-check:
	shellcheck $(scripts)
# two at a time; the analyzer, nine tenths of the time, leaves out the tests unless ALL=1
tidy:
	printf '%s\n' $(filter-out $(if $(mpi),,host/ranks/mpi.c),$(filter %.c,$(src))) | xargs -n 1 -P 2 sh -c \
	  'case $$0 in $(if $(ALL),none,tests/*)) few=--checks=-clang-analyzer-* ;; *) few= ;; esac; \
	   clang-tidy --quiet $$few "$$0" -- $(std) $(host) -Itests $(patsubst -I%,-isystem %,$(filter -I%,$(if $(mpi),$(shell $(MPICC) --showme:compile)))) -DKAC_SIMD=portable -DKAC_SIMD_portable=1 \
	   2>/dev/null || { echo "tidy: $$0" >&2; exit 1; }'

check: checks
	@$(MAKE) test

# all but the tests: gcc and clang without a warning, sanitizers, races, fuzzers.  clang does not
# optimise, which its warnings do not need; the landscapes and others that only draw more of what
# is drawn elsewhere have their turn under AddressSanitizer in make nightly
checks: format-check scripts-check tidy
	@$(MAKE) CC=gcc WERROR=1 CUDA=0 BUILD=build/release programs
	@$(MAKE) CC=clang WERROR=1 CUDA=0 MODE=debug BUILD=build/clang programs
	@$(MAKE) MODE=asan WERROR=1 programs
	@tests/run-unit build/asan '!(landscape/*|gibbs/sweeps*|correctors/@(a_|products|ignored)*)'
	@tests/run-unit build/asan/emu '@(backend|masked|gaussian|states|weigh|survive|completions|networks|cnn1d|filters|gdss|twins_conv|twins_graph|twins_gdss|twins_states|twins_passes|twins_search)/*'
	@$(MAKE) race
	@$(MAKE) fuzz FUZZ_SECONDS=10

# Criterion does not run under ThreadSanitizer: plain programs, clang's OpenMP with archer
race:
	@$(MAKE) MODE=tsan all race-programs
	@set -e; out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	export OMP_NUM_THREADS=4 OMP_WAIT_POLICY=passive OMP_TOOL_LIBRARIES=$(lastword $(wildcard /usr/lib/llvm-*/lib/libarcher.so)) \
	  TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1; \
	for p in $(race:$(BUILD)/%=build/tsan/%); do echo "race: $$p"; $$p; done; \
	echo 'race: kac run'; build/tsan/kac run configs/quickstart.yaml --set process.steps=6 \
	  --set sampler.groups=4 --set device.batch=7 --out "$$out/run" --quiet
fuzz:
	@$(MAKE) MODE=fuzz fuzz-programs
	@set -e; for p in $(fuzz:$(BUILD)/%=build/fuzz/%); do mkdir -p $$p.corpus; \
	  echo "fuzz: $$p for $(FUZZ_SECONDS) s"; \
	  $$p -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=$$p.crash- $$p.corpus $(wildcard tests/corpus) & all="$$all $$!"; done; \
	for p in $$all; do wait $$p; done
mutations: # do the tests catch the mistakes of tests/mutations?
	@$(MAKE) CUDA=0 programs
	@tests/run-mutations
# Slurm and containers, as root: minutes, and packages that nothing else needs
cluster-test:
	@CC='$(CC)' tools/install-deps cluster
	@$(MAKE) programs
	@JOBS=1 tests/run-all $(BUILD) tests/cluster/test_*.sh
# of the programs in Python, which need tools/requirements.txt
PYTHON ?= python3
tools-test:
	@'$(PYTHON)' tools/test_tools.py
nightly: export ALL := 1
nightly: check mutations cluster-test
	@KAC_LAWS_SCALE=16 build/release/tests/unit --filter '@(laws|biased)/*' # 65 536 groups a law
	@KAC_LAWS_SCALE=4 build/release/tests/unit --filter 'landscape/*'
	@$(MAKE) MODE=asan test
	@$(MAKE) OMP=0 BUILD=build/serial test
	@KAC_KILLS=200 tests/test_resume.sh build/release
	@KAC_KILLS=200 tests/test_ranks_resume.sh build/release
	@$(MAKE) fuzz FUZZ_SECONDS=1200
	@if '$(PYTHON)' -c 'import torch, safetensors' 2>/dev/null; then $(MAKE) tools-test; \
	else echo 'skipped: tools-test: $(PYTHON) has no torch and safetensors'; fi
race-programs: $(race)
fuzz-programs: $(fuzz)
# a folder that runs anywhere, with or without a GPU; gpu-check in it needs one
bundle: $(made) $(BUILD)/tests/unit $(BUILD)/benchmarks/bench_device $(BUILD)/benchmarks/bench_flips $(BUILD)/benchmarks/bench_gdss $(if $(cuda),$(BUILD)/tests/curand)
	@tools/bundle $(BUILD) build/bundle
gpu-check: bundle
	@build/bundle/gpu-check
bench: $(bench)
	@set -e; for p in $(bench); do echo "$$p"; $$p; done

# ---- install --------------------------------------------------------------------------
# what the manual and the configurations tell users to run; tools/bundle has the same
tools := $(wildcard tools/*.py tools/*.c) tools/README.md tools/requirements.txt
# the manual's links as they are where it is installed; benchmarks stay with the source
relink := sed -E -i 's|\]\(\.\./include/|](../../../include/|g; s|\[([^]]*)\]\(\.\./(benchmarks/[^)]*)\)|\1 (\2 of the source)|g'
install: all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/include' \
	  '$(DESTDIR)$(PREFIX)/lib/pkgconfig' '$(DESTDIR)$(PREFIX)/share/kac'
	install $(BUILD)/kac '$(DESTDIR)$(PREFIX)/bin'
	install -m 644 include/kac.h include/kac_plugin.h '$(DESTDIR)$(PREFIX)/include'
	install -m 644 $(lib) $(BUILD)/$(soname) $(mpi) $(cuda) '$(DESTDIR)$(PREFIX)/lib'
	ln -sf $(soname) '$(DESTDIR)$(PREFIX)/lib/libkac.so'
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(version)|' kac.pc.in \
	  >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/kac.pc'
	cp -R models configs docs '$(DESTDIR)$(PREFIX)/share/kac'
	$(relink) '$(DESTDIR)$(PREFIX)/share/kac/docs/'*.md
	install -d '$(DESTDIR)$(PREFIX)/share/kac/tools/workers' '$(DESTDIR)$(PREFIX)/share/kac/tools/plugins'
	install tools/workers/* '$(DESTDIR)$(PREFIX)/share/kac/tools/workers'
	install -m 644 tools/plugins/* '$(DESTDIR)$(PREFIX)/share/kac/tools/plugins'
	install -m 644 $(tools) '$(DESTDIR)$(PREFIX)/share/kac/tools'

# ---- the rest -------------------------------------------------------------------------
has = $(shell echo '\#include <$1>' | $(CC) -E - >/dev/null 2>&1 && echo yes || echo no)
tool = $(or $(shell command -v $1),no)
info:
	@echo 'version     $(version), MODE=$(MODE), BUILD=$(BUILD)'
	@echo 'compiler    $(shell $(CC) --version | head -n 1)'
	@echo 'kernels     $(isas)'
	@echo 'OpenMP      $(if $(filter 1,$(OMP)),$(call has,omp.h),turned off)'
	@echo 'libyaml     $(call has,yaml.h)'
	@echo 'jansson     $(call has,jansson.h)'
	@echo 'criterion   $(call has,criterion/criterion.h) (tests)'
	@echo 'checks      $(call tool,clang) $(call tool,clang-format) $(call tool,clang-tidy) $(call tool,shellcheck)'
	@echo 'CUDA        $(if $(filter 1,$(CUDA)),$(NVCC),left out (no nvcc, or CUDA=0))'
	@echo 'RDKit       $(if $(rdkit),$(rdkit),left out (no headers of RDKit and Boost and fpscores.pkl.gz in $(RDKIT))) (make rdkit)'
	@echo 'MPI         $(if $(filter 1,$(MPI)),$(MPICC),left out (no mpicc, or MPI=0))'
clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
