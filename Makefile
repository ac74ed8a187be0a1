# make lab    build the lab appliance and boot it until it is ready
# make kubeflow  the same with Kubeflow, as far as its programs can be had; KUBEFLOW=PATH has its manifests
# make test   every test, real boots among them
# make test-kubeflow  only the boot of that appliance and the look at what runs in it, half an hour
# make test-boot-disks  boots of machines with several disks, ten minutes
# make bench  atoll beside its peers: rendering; make bench-mirror: mirroring

SHELL = /bin/sh
export CGO_ENABLED ?= 0

K3S   = build/k3s
PROGRAMS = build/programs
ATOLL = build/atoll
LAB   = test/lab/appliance.yaml

KUBEFLOW     ?= $(abspath ../shared/upstream/kubeflow-26.03.tar.zst)
KUBEFLOW_DIR = build/kubeflow
export KUBEFLOW

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: lab kubeflow test test-kubeflow test-boot-disks lint lab-k3s programs atoll deps browser bench bench-mirror clean

lab: deps lab-k3s atoll
	go build -o build/labimages ./test/labimages
	build/labimages serve -addr 127.0.0.1:0 -dir build/registry -- \
		scripts/lab.sh {registry} $(ATOLL) $(LAB)
	$(ATOLL) boot test/lab/build/lab.raw

kubeflow: deps lab-k3s atoll programs
	go build -o build/labimages ./test/labimages
	@mkdir -p $(KUBEFLOW_DIR) && { [ -f $(KUBEFLOW_DIR)/key ] || ssh-keygen -q -t ed25519 -N "" -C lab -f $(KUBEFLOW_DIR)/key; }
	go run ./test/kubeflow/cmd -manifests $(KUBEFLOW) $(if $(FULL),-full) $(if $(AUTH),-auth $(AUTH)) \
		-key $(KUBEFLOW_DIR)/key.pub $(KUBEFLOW_DIR)
	@echo "the password, once it is ready: ssh -i $(KUBEFLOW_DIR)/key -p 8022 lab@127.0.0.1 sudo atoll node secret user-password" >&2
	$(ATOLL) boot --memory 10240 --timeout 90m --forward 8443:443 --forward 8022:22 $(KUBEFLOW_DIR)/build/kubeflow.raw

test: deps lint lab-k3s $(if $(wildcard $(KUBEFLOW)),programs browser)
	@[ -e "$(KUBEFLOW)" ] || echo "no manifests of Kubeflow (KUBEFLOW=PATH): its tests are skipped" >&2
	go test -timeout 90m ./...
	cd test/k3s/node && go test ./internal/...
	cd test/kubeflow/authservice && go test ./...

test-kubeflow: deps lab-k3s programs browser
	ATOLL_KUBEFLOW_FULL=$(FULL) ATOLL_KUBEFLOW_AUTH=$(or $(AUTH),oauth2-proxy) go test -timeout 180m -count=1 -v -run TestKubeflowBoot ./test/kubeflow

test-boot-disks: deps
	ATOLL_BOOT_DISKS=all go test -timeout 120m -count=1 -v -run TestBootDisks ./test

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

# The lab k3s release, for places where k3s's own cannot be reached. A module of
# its own; the second run takes seconds.
lab-k3s: deps
	go run ./test/k3s $(K3S)

# Upstream's programs, for places where their images cannot be reached: "make kubeflow".
programs: deps
	@scripts/need.sh pip=python3-pip
	go run ./test/programs $(if $(FULL),-full) $(PROGRAMS)

atoll:
	go build -trimpath -ldflags "-s -w" -o $(ATOLL) ./cmd/atoll

deps:
	@scripts/need.sh gcc=gcc /usr/include/stdlib.h=libc6-dev pkg-config=pkg-config /usr/include/seccomp.h=libseccomp-dev \
		/usr/share/doc/busybox-static=busybox-static \
		mmdebstrap=mmdebstrap qemu-system-x86_64=qemu-system-x86 qemu-img=qemu-utils \
		/usr/share/OVMF/OVMF_CODE.fd=ovmf mke2fs=e2fsprogs fsck.vfat=dosfstools \
		nft=nftables ip=iproute2 openssl=openssl ssh-keygen=openssh-client gpg=gnupg \
		mdir=mtools sgdisk=gdisk skopeo=skopeo docker-registry=docker-registry zstd=zstd

# For the tests that sign in as a person does.
browser:
	@scripts/need.sh chromium=chromium /usr/share/fonts/truetype/dejavu=fonts-dejavu-core

bench: deps atoll
	go run ./test/bench rendering -runs 5 $(ATOLL)

# A quick one: make bench-mirror BENCH="-size 500 -runs 1"
bench-mirror: atoll
	@scripts/need.sh skopeo=skopeo docker-registry=docker-registry curl=curl
	go build -o build/ ./test/bench ./test/labimages
	rm -rf build/bench-registry
	TMPDIR=$(CURDIR)/build build/labimages serve -dir build/bench-registry -- \
		build/bench mirror $(BENCH) $(ATOLL) {registry}; \
		status=$$?; rm -rf build/bench-registry; exit $$status

clean:
	rm -rf build test/lab/build test/lab/appliance.lock
