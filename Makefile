# Vouchsafe. `make help` lists what there is to do.
SHELL   := /bin/sh
MODULES := . measure image kbs kbs-pkcs11 guest-agent rootfs tests
BIN     := $(CURDIR)/bin
CACHE   := $(CURDIR)/.cache
TOOLS   := $(CACHE)/bin

# Binaries are static: no cgo. Only the race detector and kbs-pkcs11, which loads
# the library of a token, need a C compiler.
# grpcnotrace leaves out gRPC's debugging pages, whose templates would keep every
# method of every type in the binary: a tenth of the broker.
GOBUILD := CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "-s -w"

NEEDC   := build/need gcc=gcc /usr/include/stdio.h=libc6-dev

NEEDBOOT := build/need qemu-system-x86_64=qemu-system-x86 swtpm=swtpm swtpm_setup=swtpm-tools /usr/share/ovmf/OVMF.fd=ovmf \
	busybox=busybox-static mount=mount

GOLANGCI_LINT := v2.15.0
GOVULNCHECK   := v1.8.0
PROTOC_GEN_GO       := v1.36.12
PROTOC_GEN_GO_TTRPC := v1.2.10
PROTOC_GEN_GO_GRPC  := v1.6.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build all commands into bin/
	@mkdir -p $(BIN)
	$(GOBUILD) -o $(BIN)/ ./measure/cmd/measure ./kbs/cmd/kbs ./kbs/cmd/kbsctl ./guest-agent/cmd/guest-agent ./rootfs/cmd/rootfs ./tests/cmd/demo

.PHONY: build-pkcs11
build-pkcs11: ## build kbs-pkcs11, which holds the master key in a token, into bin/ (needs a C compiler)
	@$(NEEDC)
	@mkdir -p $(BIN)
	CGO_ENABLED=1 go build -trimpath -ldflags "-s -w" -o $(BIN)/ ./kbs-pkcs11/cmd/kbs-pkcs11

# The agent of an image says nothing of the checkout that it was built in, so that
# two checkouts of one commit give the same image. Lock and key are the user's: they
# are made where they are absent, and kept.
GUEST  := $(CACHE)/rootfs
RECIPE := rootfs/recipes/guest.toml

$(GUEST)/guest.lock: $(RECIPE) | build
	@mkdir -p $(GUEST)
	@apt-get -qq update || ls /var/lib/apt/lists/*Packages* >/dev/null # old lists name packages that are gone
	@$(BIN)/rootfs lock --recipe $(RECIPE) --out $@

$(GUEST)/release.key:
	@build/need openssl=openssl
	@mkdir -p $(GUEST)
	@umask 077 && openssl genpkey -algorithm ed25519 -out $@
	@openssl pkey -in $@ -pubout -out $(GUEST)/release.pub

.PHONY: guest-parts
guest-parts: build $(GUEST)/guest.lock $(GUEST)/release.key
	@$(GOBUILD) -buildvcs=false -ldflags "-s -w -buildid=" -o $(GUEST)/guest-agent ./guest-agent/cmd/guest-agent

BUILDGUEST := $(BIN)/rootfs build --agent $(GUEST)/guest-agent --key $(GUEST)/release.key --cache $(GUEST)/packages

.PHONY: rootfs
rootfs: guest-parts ## a guest image from Debian's packages into .cache/rootfs/image (FORM=initrd|verity|uki|disk|verity-disk)
	@$(BUILDGUEST) --recipe $(RECIPE) --lock $(GUEST)/guest.lock --form $(or $(FORM),initrd) --out $(GUEST)/image

.PHONY: repro
repro: build $(GUEST)/guest.lock ## build every form of the guest image twice, on two paths, and compare
	@build/need openssl=openssl git=git
	@build/repro $(BIN) $(RECIPE) $(GUEST)/guest.lock $(GUEST)/packages

.PHONY: demo
demo: ## the whole story on this machine: encrypt, sign, attest, run, refuse (KEEP=1 leaves it up, IMAGE=ref takes any image)
	@build/need runc=runc mount=mount
	@$(MAKE) --no-print-directory build
	@$(BIN)/demo --bin $(BIN) --cache $(CACHE) $(if $(KEEP),--keep) $(if $(IMAGE),--image $(IMAGE))

.PHONY: demo-vm
demo-vm: ## the same with guests that are booted: measured into a TPM, judged by what was predicted (needs no KVM; minutes)
	@$(NEEDBOOT)
	@$(MAKE) --no-print-directory guests FORMS=initrd
	@$(BIN)/demo --bin $(BIN) --cache $(CACHE) --guest-image $(GUEST)/boot/initrd --guest-key $(GUEST)/release.pub

.PHONY: test
test: ## every test with the race detector, then a fuzz smoke; installs what it needs
	@build/need runc=runc crun=crun gcc=gcc /usr/include/stdio.h=libc6-dev mount=mount mkfs.ext4=e2fsprogs busybox=busybox-static pg_ctlcluster=postgresql \
		softhsm2-util=softhsm2 /usr/lib/softhsm/libsofthsm2.so=libsofthsm2 swtpm=swtpm openssl=openssl xz=xz-utils umoci=umoci ctr=containerd fsck.erofs=erofs-utils veritysetup=cryptsetup-bin \
		skopeo=skopeo buildah=buildah jq=jq curl=curl gpg=gnupg dnsmasq=dnsmasq-base sbverify=sbsigntool fsck.vfat=dosfstools mtype=mtools sfdisk=fdisk lz4=lz4
	@$(MAKE) --no-print-directory build build-pkcs11
	@for m in $(MODULES); do echo "test $$m"; (cd $$m && GORACE=atexit_sleep_ms=0 go test -race -timeout 15m ./...) || exit 1; done
	@$(MAKE) --no-print-directory fuzz

.PHONY: test-kernel
test-kernel: build ## dm-verity, encrypted volumes, reports by configfs-tsm, cgroups of version 2, vsock, on Debian's kernel in QEMU (needs no KVM; minutes)
	@build/onkernel tests/configfs image/store image/erofs guest-agent/internal/securemount guest-agent/internal/device guest-agent/internal/oom guest-agent/internal/sandbox guest-agent/internal/swap \
		guest-agent/internal/kata@TestCgroup2 guest-agent/internal/agent@TestVsock

.PHONY: test-boot
test-boot: ## guests that are booted in QEMU, with the agent as their init (needs no KVM; minutes)
	@$(NEEDBOOT)
	@$(MAKE) --no-print-directory guests lent-guest
	@cd tests && VOUCHSAFE_GUESTS=$(GUEST) go test -count=1 -timeout 60m -v ./boot

.PHONY: test-boot-long
test-boot-long: ## more of the same, which nothing of every day changes: volumes that outlive a boot, a kernel that comes from no package (minutes)
	@$(NEEDBOOT)
	@$(MAKE) --no-print-directory guests own-guest FORMS=initrd
	@cd tests && VOUCHSAFE_GUESTS=$(GUEST) VOUCHSAFE_LONG=1 go test -count=1 -timeout 60m -run '^TestLong' -v ./boot

# Guests that are booted here are told where they are by words that an image for
# a Kata runtime does not have: the agent's port, and an address. They are
# measured like all others.
BOOTWORDS := agent.server_addr=virtio-serial://agent.0 agent.guest_components_rest_api=all net.ifnames=0
ADDRESS   := ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:none:10.0.2.3

.PHONY: guests
guests: guest-parts
	@sed 's|^cmdline = "\(.*\)"|cmdline = "\1 $(BOOTWORDS) $(ADDRESS)"|' $(RECIPE) >$(GUEST)/boot.toml
	@for form in $(or $(FORMS),initrd verity uki); do \
		$(BUILDGUEST) --recipe $(GUEST)/boot.toml --lock $(GUEST)/guest.lock --form $$form --out $(GUEST)/boot/$$form 2>&1 || exit 1; \
	done

# As clouds start it: from a disk, with an address that is lent.
.PHONY: lent-guest
lent-guest: guest-parts
	@$(BUILDGUEST) --recipe $(RECIPE) --append "$(BOOTWORDS) ip=:::::eth0:dhcp" --lock $(GUEST)/guest.lock --form disk --out $(GUEST)/boot/disk 2>&1

# For a kernel of one's own stands Debian's of another series, unpacked: of its
# package the build knows nothing.
.PHONY: own-guest
own-guest: guest-parts
	@build/fetchkernel $(GUEST)/own linux-image-amd64
	@release=$$(basename $(GUEST)/own/lib/modules/*) && \
		sed -e "s|^package = \[\"linux-image.*|file = \"own/boot/vmlinuz-$$release\"\ndirectory = \"own/lib/modules/$$release\"|" \
		-e 's|^cmdline = "\(.*\)"|cmdline = "\1 $(BOOTWORDS) $(ADDRESS)"|' $(RECIPE) >$(GUEST)/own.toml
	@$(BIN)/rootfs lock --recipe $(GUEST)/own.toml --out $(GUEST)/own.lock
	@$(BUILDGUEST) --recipe $(GUEST)/own.toml --lock $(GUEST)/own.lock --form initrd --out $(GUEST)/boot/own 2>&1

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 3s; .ci/nightly runs them for a minute)
	@build/fuzz $(FUZZTIME)

.PHONY: bench
bench: bench-measure bench-kbs bench-image bench-agent bench-boot ## every benchmark that has a gate

.PHONY: bench-measure
bench-measure: ## what verifying evidence costs beside the signatures that it cannot avoid, and predicting beside hashing
	@mkdir -p $(BIN)
	@$(GOBUILD) -o $(BIN)/ ./tests/measurebench
	@$(BIN)/measurebench

.PHONY: bench-kbs
bench-kbs: build ## what attestations and releases cost the broker, beside the cryptography that they cannot avoid
	@$(GOBUILD) -o $(BIN)/ ./tests/load
	@$(BIN)/load bench --bin $(BIN)

.PHONY: bench-image
bench-image: ## pulling images beside the tools of the field, all in one run (BENCH="--rounds 1 --case gzip", or --help; about two hours in full)
	@build/need containerd=containerd skopeo=skopeo umoci=umoci buildah=buildah podman=podman igzip=isal unpigz=pigz \
		mkfs.ext4=e2fsprogs mount=mount dpkg-deb=dpkg
	@build/peers $(CACHE)/imagebench containerd ctr umoci copier
	@mkdir -p $(BIN)
	@$(GOBUILD) -o $(BIN)/ ./tests/imagebench ./image/cmd/imagepull
	@$(BIN)/imagebench --bin $(BIN) --cache $(CACHE)/imagebench $(BENCH)

.PHONY: bench-agent
bench-agent: build ## container starts beside the bare OCI runtime, memory, output, size (AGENT="--only start --runtime crun")
	@build/need runc=runc crun=crun mount=mount unshare=util-linux busybox=busybox-static
	@$(GOBUILD) -o $(BIN)/ ./tests/agentbench
	@$(BIN)/agentbench --bin $(BIN) $(AGENT)

.PHONY: bench-boot
bench-boot: ## what the agent adds to the boot of a guest, beside an init that does nothing (needs no KVM; minutes)
	@$(NEEDBOOT)
	@$(MAKE) --no-print-directory guests
	@$(GOBUILD) -o $(BIN)/ ./tests/bootbench ./tests/bootbench/emptyinit
	@$(BIN)/bootbench --bin $(BIN) --guests $(GUEST)

.PHONY: soak-agent
soak-agent: build ## 1,000 containers and 20 pods come and go: processes, mounts, cgroups, files and memory stay flat
	@build/need runc=runc mount=mount unshare=util-linux busybox=busybox-static
	@$(GOBUILD) -o $(BIN)/ ./tests/agentbench
	@$(BIN)/agentbench soak --bin $(BIN)

.PHONY: interop-kbs
interop-kbs: build ## a second guest, written from the specification alone, against the broker
	@cd tests && go test -count=1 -v ./internal/secondguest ./interop/kbs

.PHONY: interop-image
interop-image: build ## images that cosign, notation and containerd's imgcrypt sign and encrypt, both ways (builds them: minutes, once)
	@build/need skopeo=skopeo buildah=buildah umoci=umoci ctr=containerd
	@build/peers $(CACHE)/interop cosign notation imgcrypt
	@cd tests && VOUCHSAFE_PEERS=$(CACHE)/interop/bin go test -count=1 -v ./interop/image
	@cd tests && go test -count=1 ./interop/trees
	@cd image && go test -count=1 -v -run 'Skopeo|Buildah' ./pull

.PHONY: soak-kbs
soak-kbs: build ## 200,000 handshakes: the broker's memory, threads and files stay flat
	@$(GOBUILD) -o $(BIN)/ ./tests/load
	@$(BIN)/load soak --bin $(BIN)

.PHONY: growth-kbs
growth-kbs: build ## the cost of a request with up to 100,000 resources, 10,000 reference values, 1,000 policies
	@$(GOBUILD) -o $(BIN)/ ./tests/load
	@$(BIN)/load growth --bin $(BIN)

.PHONY: alone
alone: ## build and vet every module without the workspace
	@$(NEEDC)
	@for m in $(MODULES); do echo "alone $$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./...) || exit 1; done

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## gofmt, vet and the linters that carry the house rules
	@$(NEEDC)
	@test -z "$$(gofmt -l $(MODULES))" || { gofmt -l $(MODULES); echo "lint: run gofmt" >&2; exit 1; }
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

$(TOOLS)/golangci-lint:
	@mkdir -p $(TOOLS)
	GOWORK=off GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

.PHONY: vuln
vuln: ## known vulnerabilities in what is linked (needs a vulnerability database: VULNDB=url or the default)
	@mkdir -p $(TOOLS)
	@test -x $(TOOLS)/govulncheck || GOWORK=off GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)
	@for m in $(MODULES); do echo "vuln $$m"; (cd $$m && $(TOOLS)/govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...) || exit 1; done

.PHONY: generate
generate: build ## regenerate the protobuf code and the reference pages
	@build/need protoc=protobuf-compiler /usr/include/google/protobuf/empty.proto=libprotobuf-dev
	@mkdir -p $(TOOLS)
	@test -x $(TOOLS)/protoc-gen-go || GOWORK=off GOBIN=$(TOOLS) go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	@test -x $(TOOLS)/protoc-gen-go-ttrpc || GOWORK=off GOBIN=$(TOOLS) go install github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@$(PROTOC_GEN_GO_TTRPC)
	@test -x $(TOOLS)/protoc-gen-go-grpc || GOWORK=off GOBIN=$(TOOLS) go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC)
	@PATH="$(TOOLS):$$PATH" guest-agent/api/generate.sh
	@PATH="$(TOOLS):$$PATH" kbs/api/proto/generate.sh
	@go run ./tests/cmd/reference docs/reference $(BIN)

.PHONY: clean
clean: ## remove what was built (caches too)
	rm -rf $(BIN) $(CACHE)
