# `make install`, the command's part: the gateway, its man page and its completions, beside the library of fastsock-ffi/install.mk,
# which has PREFIX, DESTDIR and the rest.
#
#   make bin-install PREFIX=/usr DESTDIR=dir    the command alone
#   make install FASTSOCK_HOST=path             built for another platform: this fastsock of the same version writes the pages

BINDIR  ?= bin
DATADIR ?= share

gateway_share := $(DESTDIR)$(PREFIX)/$(DATADIR)
FASTSOCK_HOST ?= $(ffi_built)/fastsock

.PHONY: bin-build bin-install

bin-build:
ifndef FASTSOCK_BUILT
	$(CARGO) build --release --locked $(if $(ffi_target),--target $(ffi_target))
endif

install: bin-install ## The command with its man page and completions, the C and C++ library, its headers, pkg-config and CMake files under PREFIX
bin-install: bin-build
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/$(BINDIR) $(gateway_share)/man/man1 $(gateway_share)/bash-completion/completions \
	    $(gateway_share)/zsh/site-functions $(gateway_share)/fish/vendor_completions.d
	$(INSTALL) -m 755 $(ffi_built)/fastsock $(DESTDIR)$(PREFIX)/$(BINDIR)/fastsock
	$(FASTSOCK_HOST) man > $(gateway_share)/man/man1/fastsock.1
	$(FASTSOCK_HOST) completions bash > $(gateway_share)/bash-completion/completions/fastsock
	$(FASTSOCK_HOST) completions zsh > $(gateway_share)/zsh/site-functions/_fastsock
	$(FASTSOCK_HOST) completions fish > $(gateway_share)/fish/vendor_completions.d/fastsock.fish
