module github.com/vouchsafe-cc/vouchsafe/measure

go 1.26.0

require github.com/vouchsafe-cc/vouchsafe v0.0.0

require (
	github.com/google/go-sev-guest v0.15.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/pelletier/go-toml/v2 v2.4.3 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)

replace github.com/vouchsafe-cc/vouchsafe => ../
