# `make install`: the C and C++ library under PREFIX (`make ffi-install`: it alone). DESTDIR is for packagers; both may be anything, the files find each other.
#
#   make install PREFIX=/usr/local              release build, all features
#   make install CARGO_FLAGS="--no-default-features --features redis"
#   make install FASTSOCK_BUILT=dir             takes libfastsock_ffi.{so,a} from there and builds nothing

PREFIX     ?= /usr/local
LIBDIR     ?= lib
INCLUDEDIR ?= include
DOCDIR     ?= share/doc/fastsock
DESTDIR    ?=
CARGO_FLAGS ?=
INSTALL    ?= install

ffi_version := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
ffi_abi     := $(shell sed -n 's/^\#define FASTSOCK_ABI //p' include/fastsock.h)
# Where cargo puts it: a target has a folder of its own ("--target X", "--target=X", or CARGO_BUILD_TARGET).
ffi_target  := $(or $(shell echo ' $(CARGO_FLAGS) ' | sed -n 's/.* --target[ =] *\([^ ]*\) .*/\1/p'),$(CARGO_BUILD_TARGET))
ffi_built   := $(or $(FASTSOCK_BUILT),$(or $(CARGO_TARGET_DIR),target)/$(if $(ffi_target),$(ffi_target)/)release)
ffi_lib     := $(DESTDIR)$(PREFIX)/$(LIBDIR)
ffi_include := $(DESTDIR)$(PREFIX)/$(INCLUDEDIR)
ffi_doc     := $(DESTDIR)$(PREFIX)/$(DOCDIR)
# How the library's place leads back to the prefix: ".." for lib, "../.." for lib/x86_64-linux-gnu.
ffi_up      := $(shell echo '$(LIBDIR)' | sed 's,[^/][^/]*,..,g')
ffi_fill    := sed -e 's,@VERSION@,$(ffi_version),g' -e 's,@ABI@,$(ffi_abi),g' -e 's,@LIBDIR@,$(LIBDIR),g' \
               -e 's,@INCLUDEDIR@,$(INCLUDEDIR),g' -e 's,@UP@,$(ffi_up),g'

.PHONY: ffi-build ffi-install ffi-bench

ffi-build:
ifndef FASTSOCK_BUILT
	$(CARGO) build --release --locked -p fastsock-ffi $(CARGO_FLAGS)
endif

bench: ffi-bench

install: ffi-install
ffi-install: ffi-build
	$(INSTALL) -d $(ffi_include) $(ffi_lib)/pkgconfig $(ffi_lib)/cmake/fastsock $(ffi_doc)
	$(INSTALL) -m 644 LICENSE $(ffi_doc)
	$(if $(ffi_target),TARGET=$(ffi_target)) scripts/licences fastsock-ffi $(ffi_doc)
	$(INSTALL) -m 644 include/fastsock.h include/fastsock.hpp $(ffi_include)
	$(INSTALL) -m 755 $(ffi_built)/libfastsock_ffi.so $(ffi_lib)/libfastsock.so.$(ffi_version)
	ln -sf libfastsock.so.$(ffi_version) $(ffi_lib)/libfastsock.so.$(ffi_abi)
	ln -sf libfastsock.so.$(ffi_abi) $(ffi_lib)/libfastsock.so
	$(INSTALL) -m 644 $(ffi_built)/libfastsock_ffi.a $(ffi_lib)/libfastsock.a
	$(ffi_fill) fastsock-ffi/fastsock.pc.in > $(ffi_lib)/pkgconfig/fastsock.pc
	$(ffi_fill) fastsock-ffi/fastsock-config.cmake.in > $(ffi_lib)/cmake/fastsock/fastsock-config.cmake
	$(ffi_fill) fastsock-ffi/fastsock-config-version.cmake.in > $(ffi_lib)/cmake/fastsock/fastsock-config-version.cmake

# Prints what an event costs and how large the stripped library is, each beside its budget.
ffi-bench:
	$(CARGO) test --release --locked -p fastsock-ffi --lib -- --ignored --nocapture cost_of_an_event | grep '^C event'
	@scripts/size "default features" 8
	@scripts/size "with Redis alone" 3 --no-default-features --features redis
