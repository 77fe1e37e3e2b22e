package keyprovider_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	keyproviderconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	peer "github.com/containers/ocicrypt/keywrap/keyprovider"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/keyprovider"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	kid   = "kbs:///default/image-kek/1"
	asked = "KEYPROVIDER_TEST_KEK" // this binary is the provider that a peer runs
)

func TestMain(m *testing.M) {
	if kek := os.Getenv(asked); kek != "" {
		raw, err := hex.DecodeString(kek)
		if err == nil {
			err = provider(secret.New(raw)).Exec(context.Background(), os.Stdin, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// provider knows one key.
func provider(kek secret.Bytes) *keyprovider.Provider {
	find := func(id string) (secret.Bytes, error) {
		if id != kid {
			return secret.Bytes{}, errors.New("no such key")
		}
		return kek, nil
	}
	return &keyprovider.Provider{
		Names: []string{"vouchsafe", "attestation-agent"},
		Recipient: func(_ context.Context, p keyprovider.Params) (crypt.Recipient, error) {
			k, err := find(p.KeyID)
			if err != nil {
				return nil, err
			}
			return crypt.BrokerRecipient(p.KeyID, k)
		},
		Unwrapper: crypt.KEKs(func(_ context.Context, id string) (secret.Bytes, error) { return find(id) }),
	}
}

// A layer through ocicrypt, which asks the provider in each of its two ways.
func TestOcicrypt(t *testing.T) {
	kek := secret.Random(32)
	t.Setenv(asked, hex.EncodeToString(kek.Reveal()))
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- provider(kek).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	plain := bytes.Repeat([]byte("layer "), 5000)
	for name, attrs := range map[string]keyproviderconfig.KeyProviderAttrs{
		"exec": {Command: &keyproviderconfig.Command{Path: os.Args[0]}},
		"gRPC": {Grpc: "unix://" + socket},
	} {
		t.Run(name, func(t *testing.T) {
			ocicrypt.RegisterKeyWrapper("provider.vouchsafe", peer.NewKeyWrapper("vouchsafe", attrs))
			encrypt := func(params string) (io.Reader, ocicrypt.EncryptLayerFinalizer) {
				cc, err := config.EncryptWithKeyProvider([][]byte{[]byte("vouchsafe:" + params)})
				must(t, err)
				r, finish, err := ocicrypt.EncryptLayer(cc.EncryptConfig, bytes.NewReader(plain), ocispec.Descriptor{Digest: digest.FromBytes(plain)})
				must(t, err)
				return r, finish
			}
			r, finish := encrypt("keyid=" + strings.TrimPrefix(kid, "kbs://"))
			ct, err := io.ReadAll(r)
			must(t, err)
			annotations, err := finish()
			must(t, err)
			if annotations["org.opencontainers.image.enc.keys.provider.vouchsafe"] == "" {
				t.Errorf("annotations %v", annotations)
			}
			// We read what they made.
			pub, keys, err := crypt.ParseAnnotations(annotations)
			must(t, err)
			doc, err := provider(kek).Unwrapper.Unwrap(t.Context(), keys[0])
			must(t, err)
			private, err := crypt.ParsePrivate(doc)
			must(t, err)
			d, err := crypt.NewDecrypter(bytes.NewReader(ct), pub, private)
			must(t, err)
			if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("we read something else: %v", err)
			}
			// They read it through the provider.
			dc, err := config.DecryptWithKeyProvider([][]byte{[]byte("vouchsafe")})
			must(t, err)
			desc := ocispec.Descriptor{Annotations: annotations}
			out, _, err := ocicrypt.DecryptLayer(dc.DecryptConfig, bytes.NewReader(ct), desc, false)
			must(t, err)
			if got, err := io.ReadAll(out); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("they read something else: %v", err)
			}
			// What the provider refuses they do not write.
			r, finish = encrypt("keyid=kbs:///no/such/key")
			_, err = io.Copy(io.Discard, r)
			must(t, err)
			if _, err := finish(); err == nil {
				t.Error("a layer was wrapped with a key that is not there")
			}
		})
	}
}

// The whole way with a skopeo that knows key providers; Debian 12's does not.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed: apt-get install skopeo")
	}
	kek := secret.Random(32)
	server := imagetest.Serve(t)
	layer := imagetest.GzipLayer(t, imagetest.File("a", "one"))
	imagetest.Push(t, server, server.Host+"/plain:v1", nil, layer)
	dir := t.TempDir()
	config := filepath.Join(dir, "providers.json")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `{"key-providers":{"vouchsafe":{"cmd":{"path":%q,"args":[]}}}}`, os.Args[0]), 0o600))
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy", "--tmpdir", dir, "copy", "--src-tls-verify=false"}, args...)...)
		cmd.Env = append(os.Environ(), "OCICRYPT_KEYPROVIDER_CONFIG="+config, asked+"="+hex.EncodeToString(kek.Reveal()))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	encrypted := "oci:" + filepath.Join(dir, "encrypted") + ":v1"
	out, err := run("--encryption-key", "provider:vouchsafe:keyid="+kid, "docker://"+server.Host+"/plain:v1", encrypted)
	if strings.Contains(out, "protocol not recognized") {
		t.Skip("this skopeo was built without key providers")
	}
	if err != nil {
		t.Fatalf("encrypt: %v\n%s", err, out)
	}
	if out, err := run("--decryption-key", "provider:vouchsafe", encrypted, "oci:"+filepath.Join(dir, "plain")+":v1"); err != nil {
		t.Fatalf("decrypt: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "plain", "blobs", "sha256", digest.FromBytes(layer.Blob).Encoded())); err != nil {
		t.Errorf("the layer did not come back: %v", err)
	}
}

func question(t testing.TB, params string, options []byte) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"op":              "keywrap",
		"keywrapparams":   map[string]any{"ec": map[string]any{"Parameters": map[string][][]byte{"vouchsafe": {[]byte(params)}, "pubkeys": {{1}}}}, "optsdata": options},
		"keyunwrapparams": map[string]any{"dc": nil, "annotation": nil},
	})
	must(t, err)
	return raw
}

func options(t testing.TB) []byte {
	t.Helper()
	doc, err := crypt.Private{Key: secret.Random(32), Nonce: make([]byte, 16), Digest: digest.FromString("x")}.Marshal()
	must(t, err)
	return doc.Reveal()
}

// The bytes of a message come in the forms of peers in Go and in Rust; ours are
// numbers, which both read.
func TestForms(t *testing.T) {
	kek, private := secret.Random(32), options(t)
	p := provider(kek)
	wrapped, err := p.Answer(t.Context(), keyprovider.Wrap, question(t, "keyid="+kid, private))
	must(t, err)
	var answer struct {
		Results struct{ Annotation []int } `json:"keywrapresults"`
	}
	must(t, json.Unmarshal(wrapped, &answer))
	var packet []byte
	for _, n := range answer.Results.Annotation {
		packet = append(packet, byte(n))
	}
	numbers, err := json.Marshal(answer.Results.Annotation)
	must(t, err)
	text, err := json.Marshal(string(packet))
	must(t, err)
	for name, form := range map[string]string{"numbers": string(numbers), "base64": `"` + base64.StdEncoding.EncodeToString(packet) + `"`, "text": string(text)} {
		got, err := p.Answer(t.Context(), keyprovider.Unwrap,
			[]byte(`{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":null,"annotation":`+form+`}}`))
		must(t, err)
		var back struct {
			Results struct {
				Options []int `json:"optsdata"`
			} `json:"keyunwrapresults"`
		}
		must(t, json.Unmarshal(got, &back))
		if len(back.Results.Options) != len(private) || byte(back.Results.Options[0]) != '{' {
			t.Errorf("%s: %d bytes came back", name, len(back.Results.Options))
		}
	}
}

func TestRefuses(t *testing.T) {
	p := provider(secret.Random(32))
	private := options(t)
	good := question(t, "keyid="+kid, private)
	two := strings.Replace(string(good), `"vouchsafe":[`, `"attestation-agent":["AAAA"],"vouchsafe":[`, 1)
	for name, c := range map[string]struct {
		raw  string
		op   keyprovider.Operation
		want string
	}{
		"nothing":               {"", "", "key provider"},
		"trailing bytes":        {string(good) + "{}", "", "key provider"},
		"a member twice":        {strings.Replace(string(good), `"op":`, `"op":"keywrap","op":`, 1), "", "key provider"},
		"another operation":     {`{"op":"keysteal"}`, "", "keysteal"},
		"the other method":      {string(good), keyprovider.Unwrap, "keyunwrap"},
		"nothing to wrap":       {`{"op":"keywrap","keywrapparams":{}}`, "", "nothing to wrap"},
		"nothing to unwrap":     {`{"op":"keyunwrap"}`, "", "nothing to unwrap"},
		"a broken packet":       {`{"op":"keyunwrap","keyunwrapparams":{"annotation":"e30="}}`, "", "not supported"},
		"bytes of another form": {`{"op":"keyunwrap","keyunwrapparams":{"annotation":{}}}`, "", "ocicrypt's form"},
		"numbers over a byte":   {`{"op":"keyunwrap","keyunwrapparams":{"annotation":[256]}}`, "", "ocicrypt's form"},
		"nobody's parameters":   {strings.Replace(string(good), `"vouchsafe"`, `"somebody"`, 1), "", "0 sets"},
		"two sets":              {two, "", "2 sets"},
		"not a layer's options": {string(question(t, "keyid="+kid, []byte("my diary"))), "", "not well formed"},
		"too large":             {string(good) + strings.Repeat(" ", keyprovider.MaxMessage), "", "at most"},
		"a key of nobody":       {string(question(t, "keyid=kbs:///a/b/c", private)), "", "no such key"},
	} {
		_, err := p.Answer(t.Context(), c.op, []byte(c.raw))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), string(private[20:40])) || strings.Contains(err.Error(), "diary") {
			t.Errorf("%s: the error quotes what was to be wrapped", name)
		}
	}
	p.Unwrapper = nil
	if _, err := p.Answer(t.Context(), "", []byte(`{"op":"keyunwrap","keyunwrapparams":{"annotation":"e30="}}`)); err == nil {
		t.Error("a provider without keys unwraps")
	}
	if err := p.Exec(t.Context(), strings.NewReader(strings.Repeat(" ", keyprovider.MaxMessage+9)), io.Discard); err == nil {
		t.Error("an endless question")
	}
}

func TestParseParams(t *testing.T) {
	for text, want := range map[string]keyprovider.Params{
		"": {}, "Enabled": {}, "keyid=/a/b/c": {KeyID: "kbs:///a/b/c"}, "keypath=/k::keyid=kbs:///a/b/c::algorithm=A256GCM::sample=false": {KeyID: "kbs:///a/b/c", KeyPath: "/k"},
	} {
		if p, err := keyprovider.ParseParams(text); err != nil || p != want {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	for _, text := range []string{"keyid", "keyid=", "keyid=a", "keyid=/a/b/c::keyid=/a/b/c", "sample=true", "algorithm=A256CTR", "x=y", "keypath=a::keypath=b", "::"} {
		if p, err := keyprovider.ParseParams(text); err == nil {
			t.Errorf("%q is accepted as %+v", text, p)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	p := provider(secret.Random(32))
	f.Add(question(f, "keyid="+kid, options(f)))
	f.Add([]byte(`{"op":"keyunwrap","keyunwrapparams":{"annotation":[123,125]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		answer, err := p.Answer(t.Context(), "", raw)
		if err == nil && !json.Valid(answer) {
			t.Fatalf("%q is answered with %q", raw, answer)
		}
	})
}
