package ctl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyprovider"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const keyProviderLong = `Be the key provider of ocicrypt for skopeo, buildah and containerd: they call it
as OCICRYPT_KEYPROVIDER_CONFIG says,

  {"key-providers":{"vouchsafe":{"cmd":{"path":"/usr/bin/kbsctl","args":["image","keyprovider"]}}}}
  {"key-providers":{"vouchsafe":{"grpc":"unix:///run/user/1000/keyprovider.sock"}}}

and pass on what follows its name: skopeo copy --encryption-key
provider:vouchsafe:keyid=kbs:///prod/image/app::keypath=kek.bin SRC DST. One
question comes on standard input; with --listen, any number come over gRPC.

Without keypath, and with --register, a key is made and stored at the broker. It is
not known then which image it is for, so say for which repositories the broker may
release it (--bind), or --unbound. Without keyid it lies below --key-prefix, one for
each layer. keyid without keypath needs --listen: a program that is run for each
layer cannot know the key of the layer before.

Layers are opened with --with-key, --with-kek or, inside a guest, --with-agent. The
broker gives keys to attested guests alone.`

// keyMaker finds keys for layers, or makes them, and stores them at the broker. A
// key ID means one key for as long as it lives.
type keyMaker struct {
	cli      *cli
	register bool
	remember bool // more than one question will be asked
	bind     []string
	prefix   string

	mu   sync.Mutex
	made map[string]secret.Bytes // by key ID
}

func (c *cli) imageKeyProviderCommand() *cobra.Command {
	k := &keyMaker{cli: c, made: map[string]secret.Bytes{}}
	var with openFlags
	var listen, name string
	var unbound bool
	cmd := &cobra.Command{
		Use:   "keyprovider [--register (--bind REPOSITORY | --unbound)] [--with-key FILE] [--with-kek URI=FILE] [--listen ADDRESS]",
		Short: "Encrypt and open images with skopeo, buildah or containerd",
		Long:  keyProviderLong,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case k.register && !unbound && len(k.bind) == 0:
				return usagef("which images may the key open?").hint("--bind reg.example/app for those of a repository; --unbound for any")
			case !k.register && (unbound || len(k.bind) > 0):
				return usagef("--bind and --unbound are about --register")
			case unbound && len(k.bind) > 0:
				return usagef("--bind and --unbound exclude each other")
			}
			chain, wipe, err := with.open(cmd.Context(), c)
			defer wipe()
			if err != nil {
				return err
			}
			defer k.wipe()
			k.remember = listen != ""
			p := &keyprovider.Provider{Names: []string{name, "attestation-agent"}, Recipient: k.recipient}
			if k.remember {
				chain = append(chain, crypt.KEKs(k.known))
			}
			p.Unwrapper = chain
			if listen == "" {
				return p.Exec(cmd.Context(), c.stdio.In, c.stdio.Out)
			}
			return c.serveKeys(cmd.Context(), p, listen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "serve gRPC at this `ADDRESS`: unix:///PATH, or a port on loopback (127.0.0.1:50051)")
	f.StringVar(&name, "name", "vouchsafe", "`NAME` of the provider in OCICRYPT_KEYPROVIDER_CONFIG")
	f.BoolVar(&k.register, "register", false, "store keys at the broker")
	f.StringArrayVar(&k.bind, "bind", nil, "release a stored key only for images of this `REPOSITORY` (repeatable)")
	f.BoolVar(&unbound, "unbound", false, "let the broker release a stored key for any image")
	f.StringVar(&k.prefix, "key-prefix", "kbs:///default/image-kek", "where keys without a keyid lie: kbs:///`REPO/TYPE`")
	with.add(cmd)
	return cmd
}

// recipient is the key that one layer is wrapped with.
func (k *keyMaker) recipient(ctx context.Context, p keyprovider.Params) (crypt.Recipient, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kid := p.KeyID
	if kek, ok := k.made[kid]; ok {
		return crypt.BrokerRecipient(kid, kek)
	}
	switch {
	case !k.register && (p.KeyPath == "" || kid == ""):
		return nil, errors.New("keyid and keypath are needed, or --register, which makes a key and stores it at the broker")
	case k.register && kid != "" && p.KeyPath == "" && !k.remember:
		return nil, errors.New("keyid without keypath needs --listen: this program does not know the key of the layer before")
	}
	if kid == "" {
		kid = k.prefix + "/" + strings.ToLower(rand.Text())
	}
	path, err := resourcePath(kid)
	if err != nil {
		return nil, err
	}
	kek := secret.Random(kekSize)
	if p.KeyPath != "" {
		if kek, err = readKEK(p.KeyPath); err != nil {
			return nil, err
		}
	}
	if k.register {
		if err := k.store(ctx, path, kek, p.KeyPath != ""); err != nil {
			return nil, err
		}
	}
	k.made[kid] = kek
	return crypt.BrokerRecipient(kid, kek)
}

// store registers a key. One from a file may be there already: the layer before
// brought it, and only guests could tell whether it is the same.
func (k *keyMaker) store(ctx context.Context, path string, kek secret.Bytes, given bool) error {
	a, err := k.cli.client()
	if err != nil {
		return err
	}
	defer a.Close()
	about := api.ResourceMeta{Images: k.bind, Purpose: "opens container images"}
	if given {
		_, err := a.Resource(ctx, path)
		if none, err := absent(err); err != nil || !none {
			return err
		}
	}
	if _, err := a.PutResourceIf(ctx, path, 0, kek, &about); err != nil {
		return doing(err, "register resource/%s", path)
	}
	return nil
}

// known gives a key that was made here.
func (k *keyMaker) known(_ context.Context, kid string) (secret.Bytes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if kek, ok := k.made[kid]; ok {
		return secret.Copy(kek.Reveal()), nil
	}
	return secret.Bytes{}, fmt.Errorf("the key %s was not made here", kid)
}

func (k *keyMaker) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, kek := range k.made {
		kek.Destroy()
	}
	clear(k.made)
}

// serveKeys serves until it is interrupted. A socket is its user's alone.
func (c *cli) serveKeys(ctx context.Context, p *keyprovider.Provider, address string) error {
	l, err := listenLocal(ctx, address)
	if err != nil {
		return err
	}
	c.warnf("key provider at %s; whoever reaches it can have layers wrapped and opened", address)
	return p.Serve(ctx, l)
}

func listenLocal(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		mask := syscall.Umask(0o177) // nobody else may connect, from the first moment on
		l, err := lc.Listen(ctx, "unix", path)
		syscall.Umask(mask)
		if err != nil {
			return nil, usagef("%w", err)
		}
		return l, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || !isLoopback(host) {
		return nil, usagef("--listen %s: unix:///PATH or a port on loopback, for nobody is asked who he is", address)
	}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return l, nil
}
