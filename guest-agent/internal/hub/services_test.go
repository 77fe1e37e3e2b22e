package hub

import (
	"context"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms/kmstest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// sign signs any payload.
func (s sealing) sign(p sealed.Payload) string {
	s.t.Helper()
	text, err := sealed.Sign(&p, sealingKID, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// envelope is a secret under a key of a service.
func (s sealing) envelope(at *kmstest.Service, value string) string {
	s.t.Helper()
	o := kms.New(kms.Config{Fetch: heldBy(at), Files: at.Files})
	defer o.Close()
	e, key, err := sealed.NewEnvelopment(secret.Copy([]byte(value)))
	if err != nil {
		s.t.Fatal(err)
	}
	wrapped, err := o.Wrap(s.t.Context(), at.Provider, at.Settings, at.Key("app"), key)
	if err != nil {
		s.t.Fatal(err)
	}
	e.SetKey(wrapped.KeyID, wrapped.Ciphertext)
	return s.sign(sealed.Payload{Type: sealed.Envelope, Provider: at.Provider, Envelopment: e, Settings: at.Settings, Annotations: wrapped.Annotations})
}

// A secret lies at somebody else's service; what opens it there is a credential
// that the broker gives to guests, and takes back.
func TestUnsealElsewhere(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *kmstest.Service{
		"vault": kmstest.Vault, "aws": kmstest.AWS, "gcp": kmstest.GCP, "azure": kmstest.Azure, "aliyun": kmstest.Aliyun, "aliyun instance": kmstest.AliyunInstance,
	} {
		t.Run(name, func(t *testing.T) {
			at, owner := start(t), newSealing(t)
			w := newWorld(t, func(c *Config) { c.Sealed.Credentials = at.Files })
			w.broker.put("default/signing/1", owner.jwk(sealingKID))
			for uri, value := range at.Resources {
				w.broker.put(strings.TrimPrefix(uri, "kbs:///"), []byte(value))
			}
			named := sealed.Payload{Type: sealed.Vault, Provider: at.Provider, Name: at.Secret("app"), Settings: at.Settings}
			enveloped := owner.envelope(at, "within")
			for text, want := range map[string]string{owner.sign(named): kmstest.Value, enveloped: "within"} {
				value, err := w.hub.Unseal(t.Context(), text)
				if err != nil || string(value.Reveal()) != want {
					t.Fatalf("%q, %v", value.Reveal(), err)
				}
			}
			w.broker.mu.Lock()
			handshakes := w.broker.handshakes
			w.broker.mu.Unlock()
			if handshakes != 1 {
				t.Errorf("%d attestations", handshakes)
			}
			denied := named
			denied.Name = at.Secret(kmstest.Denied)
			if _, err := w.hub.Unseal(t.Context(), owner.sign(denied)); fault.CodeOf(err) != fault.Forbidden {
				t.Errorf("%v, want %s", err, fault.Forbidden)
			}
			w.broker.deny(strings.TrimPrefix(kmstest.CredentialURI, "kbs:///"), fault.NewTicket())
			before := at.Calls()
			if _, err := w.hub.Unseal(t.Context(), enveloped); fault.CodeOf(err) != fault.PolicyDenied {
				t.Errorf("%v, want %s", err, fault.PolicyDenied)
			}
			if at.Calls() != before {
				t.Error("the service was asked although the broker gives no credential")
			}
			for _, told := range []string{w.log.String(), strings.Join(w.reported(), "\n")} {
				if strings.Contains(told, kmstest.Value) || strings.Contains(told, "hush") {
					t.Errorf("a secret was told: %s", told)
				}
			}
		})
	}
}

// reported is what the broker was told of refusals.
func (w *world) reported() (all []string) {
	told, _ := w.broker.told()
	for _, r := range told {
		all = append(all, r.Cause)
	}
	return all
}

// Where nobody's signature is asked for, the host could have the guest's
// credentials sent to itself.
func TestNobodyElsewhereWithoutSignatures(t *testing.T) {
	at := kmstest.Vault(t)
	w := newWorld(t, func(c *Config) { c.Sealed.UnsafeUnsigned = true })
	w.broker.put(strings.TrimPrefix(kmstest.CredentialURI, "kbs:///"), []byte(at.Resources[kmstest.CredentialURI]))
	text := newSealing(t).sign(sealed.Payload{Type: sealed.Vault, Provider: "Vault", Name: at.Secret("app"), Settings: at.Settings})
	if _, err := w.hub.Unseal(t.Context(), text); fault.CodeOf(err) != fault.Unsupported {
		t.Errorf("%v, want %s", err, fault.Unsupported)
	}
	if at.Calls() != 0 {
		t.Error("the service was asked")
	}
}

func heldBy(at *kmstest.Service) func(ctx context.Context, uri string) (secret.Bytes, error) {
	return func(_ context.Context, uri string) (secret.Bytes, error) {
		return secret.Copy([]byte(at.Resources[uri])), nil
	}
}
