# make              build/release/libkac.{a,so} and build/kac
# make demo         installs what is missing, builds, runs the built-in default
# make test         installs what is missing, builds, passes the tests
# make check        everything a change must pass; make MODE=asan test: one other build
# make info         what was found; turn off by hand with CUDA=0 MPI=0 OMP=0

MODE  ?= release
BUILD ?= build/$(MODE)
ifeq ($(origin CC),default)
  CC := gcc
endif
OMP ?= 1

# ---- flags ----------------------------------------------------------------------------
opt.release := -O3 -g -DNDEBUG
opt.debug   := -O0 -g3
opt.asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
opt.tsan    := -O1 -g -fsanitize=thread
opt := $(or $(opt.$(MODE)),$(error MODE=$(MODE): want release, debug, asan or tsan))

std  := -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno
warn := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
        -Wcast-qual -Wvla -Wformat=2 -Wconversion -Wdouble-promotion -Wundef $(if $(WERROR),-Werror)
cflags := $(std) $(opt) $(warn) -fPIC -fvisibility=hidden -MMD -MP \
          $(if $(filter 1,$(OMP)),-fopenmp,-Wno-unknown-pragmas) $(CFLAGS)
libs   := -lyaml -ljansson -lm $(LDLIBS)

# ---- sources --------------------------------------------------------------------------
# kernels/X_simd.c is compiled once for each instruction set; simd.h names its functions
c    := $(filter-out %_simd.c,$(wildcard kernels/*.c)) $(wildcard host/[!c]*/*.c)
simd := $(wildcard kernels/*_simd.c)
isas := portable $(if $(filter x86_64 amd64,$(shell uname -m)),avx2 avx512)
isa.portable :=
isa.avx2     := -mavx2 -mfma
isa.avx512   := -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma

obj  := $(c:%.c=$(BUILD)/%.o) $(foreach i,$(isas),$(simd:%.c=$(BUILD)/%.$i.o))
unit := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/test_*.c))
cli  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard host/cli/*.c))
lib  := $(BUILD)/libkac.a

.DELETE_ON_ERROR:
.PHONY: all info clean FORCE
all: $(lib) $(BUILD)/kac

# ---- rules; the include path is the layer rule -------------------------------------------
$(BUILD)/kernels/%.o:  inc = -Iinclude -Ikernels
$(BUILD)/host/%.o:     inc = -Iinclude -Ikernels -Ihost/process -Ihost/network -Ihost/reward -Ihost/step -Ihost/files
$(BUILD)/host/cli/%.o: inc = -Iinclude
$(BUILD)/tests/%.o $(BUILD)/benchmarks/%.o: inc = -Iinclude -Ikernels -Ihost/process -Ihost/network -Ihost/reward -Ihost/step -Ihost/files -Itests

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(cflags) $(inc) -c $< -o $@
define simd_rule
$(BUILD)/%_simd.$1.o: %_simd.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$(CC) $(cflags) -Iinclude -Ikernels $(isa.$1) -DKAC_SIMD=$1 -DKAC_SIMD_$1=1 -c $$< -o $$@
endef
$(foreach i,$(isas),$(eval $(call simd_rule,$i)))
$(lib): $(obj)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/kac: $(cli) $(lib)
	$(CC) $(cflags) $^ -o $@ $(libs)
$(BUILD)/tests/unit: $(unit) $(lib)
	$(CC) $(cflags) $^ -o $@ -lcriterion $(libs)
$(BUILD)/tests/run_%: $(BUILD)/tests/run_%.o $(lib)
	$(CC) $(cflags) $^ -o $@ $(libs)

$(BUILD)/flags: FORCE # changes when a flag does, and everything rebuilds
	@mkdir -p $(@D)
	@echo '$(CC) $(cflags)' | cmp -s - $@ || echo '$(CC) $(cflags)' >$@

info:
	@echo 'MODE=$(MODE) CC=$(CC) OMP=$(OMP)'
clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
