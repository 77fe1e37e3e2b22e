package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// recipientFlags name readers of an image with keys of their own.
type recipientFlags struct{ specs []string }

func (f *recipientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.specs, "recipient", nil,
		"who can open the image too: jwe:FILE or pkcs11:FILE with a public key, pkcs7:FILE with a certificate, or a key pair in a token by its PKCS#11 URI (`KIND:FILE`, repeatable)")
}

func (f *recipientFlags) read(ctx context.Context, c *cli) ([]crypt.Recipient, error) {
	var list []crypt.Recipient
	for _, spec := range f.specs {
		kind, file, ok := strings.Cut(spec, ":")
		if !ok || file == "" {
			return nil, usagef("--recipient %s is not KIND:FILE", spec).hint("jwe:owner.pub, pkcs7:owner.crt or pkcs11:token.pub")
		}
		doc, err := c.recipientKey(ctx, spec, file)
		if err != nil {
			return nil, usagef("recipient: %w", err)
		}
		r, err := crypt.NewRecipient(crypt.Scheme(kind), doc)
		if err != nil {
			return nil, usagef("recipient %s: %w", spec, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// recipientKey reads a recipient's key or certificate. In a PKCS#11 URI there is
// a "=" where a file's name seldom has one; a file goes before.
func (c *cli) recipientKey(ctx context.Context, spec, file string) ([]byte, error) {
	doc, err := given.File(file, maxConfig)
	if errors.Is(err, fs.ErrNotExist) && tokenkey.IsURI(spec) && strings.Contains(file, "=") {
		return c.tokenPublic(ctx, spec)
	}
	return doc, err
}

// openFlags say what opens the keys that an image has now.
type openFlags struct {
	keys, keks []string
	words      passwordFlags
	agent      string
}

func (f *openFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.keys, "with-key", nil, "open with the private key in this `FILE` (RSA or ECDSA, with a password or without), or with one that stays in a token, by its PKCS#11 URI (repeatable)")
	f.words.add(cmd)
	fl.StringArrayVar(&f.keks, "with-kek", nil, "open with a key-encrypting key: `URI=FILE` with its 32 bytes (repeatable)")
	fl.StringVar(&f.agent, "with-agent", "", "inside a guest: open with keys that its agent gets, at this `ADDRESS` (http://127.0.0.1:8006)")
}

func (f *openFlags) empty() bool { return len(f.keys)+len(f.keks) == 0 && f.agent == "" }

// open returns the unwrapper and what wipes its keys.
func (f *openFlags) open(ctx context.Context, c *cli) (crypt.Chain, func(), error) {
	ring, keks := new(crypt.Keyring), map[string]secret.Bytes{}
	var tokens []*tokenkey.Key
	wipe := func() {
		for _, k := range keks {
			k.Destroy()
		}
		for _, t := range tokens {
			_ = t.Close() // what it did was done
		}
	}
	for _, name := range f.keys {
		if tokenkey.IsURI(name) {
			key, err := c.tokenKey(ctx, name, f.words)
			if err != nil {
				return nil, wipe, err
			}
			tokens = append(tokens, key)
			if err := ring.AddDecrypter(key); err != nil {
				return nil, wipe, usagef("--with-key %s: %w", name, err)
			}
			continue
		}
		if err := f.addKey(ring, name); err != nil {
			return nil, wipe, err
		}
	}
	for _, spec := range f.keks {
		uri, file, ok := strings.Cut(spec, "=")
		kid, err := crypt.NormalizeKID(uri)
		if !ok || err != nil {
			return nil, wipe, usagef("--with-kek %s is not URI=FILE", spec).hint("kbs:///prod/image/app=kek.bin")
		}
		if keks[kid], err = readKEK(file); err != nil {
			return nil, wipe, err
		}
	}
	chain := crypt.Chain{ring, crypt.KEKs(func(_ context.Context, kid string) (secret.Bytes, error) {
		if k, ok := keks[kid]; ok {
			return k, nil
		}
		return secret.Bytes{}, fmt.Errorf("the key %s is not at hand: --with-kek %s=FILE", kid, kid)
	})}
	if f.agent != "" {
		agent, err := newAgentKeys(f.agent)
		if err != nil {
			return nil, wipe, err
		}
		chain = append(chain, crypt.KEKs(agent.get))
	}
	return chain, wipe, nil
}

// addKey adds the private key of a file.
func (f *openFlags) addKey(ring *crypt.Keyring, file string) error {
	doc, err := f.words.readKey(file)
	if err != nil {
		return err
	}
	defer doc.Destroy()
	if err := ring.Add(doc); err != nil {
		return usagef("--with-key %s: %w", file, err)
	}
	return nil
}

// agentKeys gets keys from the guest agent's API for the workload, as containers
// do (guest-protocol 8). A key that opens one image alone is not released there.
type agentKeys struct {
	base *url.URL
	http http.Client
}

func newAgentKeys(address string) (*agentKeys, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Path != "" || !isLoopback(u.Hostname()) {
		return nil, usagef("--with-agent %s: the agent serves on loopback alone, for example http://127.0.0.1:8006", address)
	}
	return &agentKeys{base: u, http: http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (a *agentKeys) get(ctx context.Context, kid string) (secret.Bytes, error) {
	if !strings.HasPrefix(kid, "kbs:///") {
		return secret.Bytes{}, fmt.Errorf("the agent is not asked for %s: only for kbs:///REPO/TYPE/TAG", kid)
	}
	path, err := resourcePath(kid)
	if err != nil {
		return secret.Bytes{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base.JoinPath("cdh/resource", path).String(), nil)
	if err != nil {
		return secret.Bytes{}, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("ask the agent: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, kekSize+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("ask the agent: %w", err)
	}
	kek := secret.New(body)
	if resp.StatusCode != http.StatusOK || kek.Len() != kekSize {
		kek.Destroy()
		return secret.Bytes{}, fmt.Errorf("the agent does not give %s: status %d", kid, resp.StatusCode)
	}
	return kek, nil
}

// readKEK reads a key-encrypting key.
func readKEK(file string) (secret.Bytes, error) {
	kek, err := readKey(file, maxConfig)
	if err != nil {
		return kek, err
	}
	if kek.Len() != kekSize {
		return secret.Bytes{}, usagef("%s has %d bytes", file, kek.Len()).
			hint("a key-encrypting key has exactly 32 bytes, without a line feed: openssl rand 32 > FILE")
	}
	return kek, nil
}

// holdThenBind stores a new key, which the broker releases to nobody until do
// has written the image and says what the key is for. If do fails, the key goes
// too, unless an image may be in place that only this key opens.
func (c *cli) holdThenBind(ctx context.Context, a *admin.Client, path string, kek secret.Bytes, do func() (api.ResourceMeta, error)) error {
	info, err := a.PutResourceIf(ctx, path, 0, kek, &api.ResourceMeta{Hold: "its image is being written"})
	if err != nil {
		return doing(err, "register resource/%s", path)
	}
	about, err := do()
	if errors.Is(err, ship.ErrHalfDone) {
		return (&failure{err: err, exit: exitCode(err)}).
			hint("resource/%s stays, held back: an image may need it. If it does: kbsctl set resource %s%s --hold \"\"; if not, delete it", path, path, imagesFlag(about))
	}
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err != nil {
		if derr := a.DeleteResource(rctx, path, info.Version); derr != nil {
			c.warnf("resource/%s was registered and could not be removed again; delete it", path)
		}
		return err
	}
	if _, err := a.SetResourceMeta(rctx, path, info.Version, about); err != nil {
		return errHeld(err, path, about)
	}
	return nil
}
