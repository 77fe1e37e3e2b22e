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
	github.com/distribution/distribution/v3 v3.1.2 // indirect
	github.com/distribution/reference v0.6.0 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
)

replace github.com/vouchsafe-cc/vouchsafe => ../

replace github.com/vouchsafe-cc/vouchsafe/measure => ../measure

replace github.com/vouchsafe-cc/vouchsafe/image => ../image

replace github.com/vouchsafe-cc/vouchsafe/kbs => ../kbs

replace github.com/vouchsafe-cc/vouchsafe/guest-agent => ../guest-agent
