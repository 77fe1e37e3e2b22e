// Command copier is what `skopeo copy` does, without its command line: Debian's
// skopeo is built with an old Go, whose hashes cost several times as much. It is
// built beside the benchmark, as a module of its own (build/peers).
//
//	copier [--key PEMFILE] docker://HOST/NAME:TAG oci:DIR:TAG
package main

import (
	"context"
	"flag"
	"log"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	encconfig "github.com/containers/ocicrypt/config"
	enchelpers "github.com/containers/ocicrypt/helpers"
)

func main() {
	log.SetFlags(0)
	key := flag.String("key", "", "private key that decrypts the layers")
	flag.Parse()
	if err := run(*key, flag.Arg(0), flag.Arg(1)); err != nil {
		log.Fatal(err)
	}
}

func run(key, from, to string) error {
	src, err := alltransports.ParseImageName(from)
	if err != nil {
		return err
	}
	dst, err := alltransports.ParseImageName(to)
	if err != nil {
		return err
	}
	options := &copy.Options{SourceCtx: &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}}
	if key != "" {
		cc, err := enchelpers.CreateCryptoConfig(nil, []string{key})
		if err != nil {
			return err
		}
		options.OciDecryptConfig = encconfig.CombineCryptoConfigs([]encconfig.CryptoConfig{cc}).DecryptConfig
	}
	anything := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	policy, err := signature.NewPolicyContext(anything)
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, dst, src, options)
	return err
}
