module github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11

go 1.26.0

require (
	github.com/miekg/pkcs11 v1.1.2
	github.com/pelletier/go-toml/v2 v2.4.3
	github.com/spf13/cobra v1.10.2
	github.com/vouchsafe-cc/vouchsafe v0.0.0
	github.com/vouchsafe-cc/vouchsafe/kbs v0.0.0
	google.golang.org/grpc v1.85.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/vouchsafe-cc/vouchsafe => ../

replace github.com/vouchsafe-cc/vouchsafe/measure => ../measure

replace github.com/vouchsafe-cc/vouchsafe/image => ../image

replace github.com/vouchsafe-cc/vouchsafe/kbs => ../kbs
