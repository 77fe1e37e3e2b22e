module github.com/vouchsafe-cc/vouchsafe/tests

go 1.26.0

require (
	github.com/vouchsafe-cc/vouchsafe v0.0.0
	github.com/vouchsafe-cc/vouchsafe/guest-agent v0.0.0
	github.com/vouchsafe-cc/vouchsafe/image v0.0.0
	github.com/vouchsafe-cc/vouchsafe/kbs v0.0.0
	github.com/vouchsafe-cc/vouchsafe/measure v0.0.0
)

require (
	github.com/containerd/log v0.1.0 // indirect
	github.com/containerd/ttrpc v1.2.10 // indirect
	github.com/distribution/distribution/v3 v3.1.2 // indirect
	github.com/distribution/reference v0.6.0 // indirect
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260819154853-08b0e4226688 // indirect
	google.golang.org/grpc v1.84.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/vouchsafe-cc/vouchsafe => ../

replace github.com/vouchsafe-cc/vouchsafe/measure => ../measure

replace github.com/vouchsafe-cc/vouchsafe/image => ../image

replace github.com/vouchsafe-cc/vouchsafe/kbs => ../kbs

replace github.com/vouchsafe-cc/vouchsafe/guest-agent => ../guest-agent
