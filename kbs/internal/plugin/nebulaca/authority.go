package nebulaca

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slackhq/nebula/cert"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// authority is a certificate with its private key.
type authority struct {
	crt cert.Certificate
	key secret.Bytes // as the library has it, not PEM
}

// generate makes an authority that signs itself. Certificates are of version 1,
// which every Nebula understands.
func generate(l limits, now time.Time) (authority, error) {
	t := cert.TBSCertificate{
		Version: cert.Version1, Name: l.name, Networks: l.ips, UnsafeNetworks: l.subnets, Groups: l.groups, IsCA: true,
		NotBefore: now.Truncate(time.Second), NotAfter: now.Add(l.duration).Truncate(time.Second),
	}
	var key secret.Bytes
	if l.p256 {
		pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return authority{}, err
		}
		raw, err := pair.ECDH()
		if err != nil {
			return authority{}, err
		}
		t.Curve, t.PublicKey, key = cert.Curve_P256, raw.PublicKey().Bytes(), secret.New(raw.Bytes())
	} else {
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return authority{}, err
		}
		t.Curve, t.PublicKey, key = cert.Curve_CURVE25519, pub, secret.New(priv)
	}
	crt, err := t.Sign(nil, t.Curve, key.Reveal())
	if err != nil {
		key.Destroy()
		return authority{}, fmt.Errorf("sign an authority: %w", err)
	}
	return authority{crt, key}, nil
}

// text is what the ring keeps: two blocks of PEM, the key first.
func (a authority) text() (secret.Bytes, error) {
	public, err := a.crt.MarshalPEM()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("write an authority: %w", err)
	}
	private := cert.MarshalSigningPrivateKeyToPEM(a.crt.Curve(), a.key.Reveal())
	defer clear(private)
	return secret.New(slices.Concat(private, public)), nil
}

// open reads what text wrote, and wipes it.
func open(text secret.Bytes) (authority, error) {
	defer text.Destroy()
	key, rest, curve, err := cert.UnmarshalSigningPrivateKeyFromPEM(text.Reveal())
	if err != nil {
		return authority{}, fmt.Errorf("the key of the authority cannot be read: %w", err)
	}
	a := authority{key: secret.New(key)}
	if a.crt, _, err = cert.UnmarshalCertificateFromPEM(rest); err == nil {
		err = a.crt.VerifyPrivateKey(curve, key)
	}
	if err != nil {
		a.key.Destroy()
		return authority{}, fmt.Errorf("the certificate of the authority cannot be read: %w", err)
	}
	return a, nil
}

// issued is what a guest gets.
type issued struct {
	crt, ca     []byte       // PEM
	key         secret.Bytes // PEM
	fingerprint string
	expires     time.Time
}

// last is when the last of its certificates ends: a second before the authority
// does, as with Nebula's own tools.
func (a authority) last() time.Time { return a.crt.NotAfter().Add(-time.Second) }

// issue makes a key pair and signs for it. What the authority may not sign is
// forbidden.
func (a authority) issue(r request, now time.Time) (issued, error) {
	// Another replica's clock may have been ahead when it made the authority.
	from := now.Truncate(time.Second)
	if from.Before(a.crt.NotBefore()) {
		from = a.crt.NotBefore()
	}
	until := a.last()
	if r.duration > 0 {
		until = from.Add(r.duration).Truncate(time.Second)
	}
	if until.After(a.last()) {
		return issued{}, fault.Newf(fault.Forbidden, "duration: the authority ends at %s, before a certificate for %s would", a.crt.NotAfter().UTC().Format(time.RFC3339), r.duration)
	}
	public, private, err := pair(a.crt.Curve())
	if err != nil {
		return issued{}, err
	}
	defer private.Destroy()
	t := cert.TBSCertificate{
		Version: cert.Version1, Name: r.name, Networks: []netip.Prefix{r.ip}, UnsafeNetworks: r.subnets, Groups: r.groups,
		NotBefore: from, NotAfter: until, PublicKey: public, Curve: a.crt.Curve(),
	}
	crt, err := t.Sign(a.crt, a.crt.Curve(), a.key.Reveal())
	if err != nil {
		return issued{}, fault.Newf(fault.Forbidden, "the authority may not sign this: %w", err)
	}
	return a.checked(crt, private, from)
}

// checked asks of a certificate what every node of the network will.
func (a authority) checked(crt cert.Certificate, private secret.Bytes, at time.Time) (out issued, err error) {
	pool := cert.NewCAPool()
	// The pool takes an authority also where the machine's clock says that it is not
	// in force; whether it is, at the time that counts, is asked next.
	if err = pool.AddCA(a.crt); err == nil || errors.Is(err, cert.ErrExpired) {
		_, err = pool.VerifyCertificate(at, crt)
	}
	if err != nil {
		return issued{}, fmt.Errorf("the certificate that was made does not verify: %w", err)
	}
	if out.crt, err = crt.MarshalPEM(); err != nil {
		return issued{}, err
	}
	if out.ca, err = a.crt.MarshalPEM(); err != nil {
		return issued{}, err
	}
	if out.fingerprint, err = crt.Fingerprint(); err != nil {
		return issued{}, err
	}
	out.key, out.expires = secret.New(cert.MarshalPrivateKeyToPEM(crt.Curve(), private.Reveal())), crt.NotAfter()
	return out, nil
}

// pair makes a node's key pair, for key agreement.
func pair(c cert.Curve) (public []byte, private secret.Bytes, err error) {
	curve := ecdh.X25519()
	if c == cert.Curve_P256 {
		curve = ecdh.P256()
	}
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return key.PublicKey().Bytes(), secret.New(key.Bytes()), nil
}

// body is the answer in the field's form: JSON with texts as lists of bytes.
func (i issued) body() []byte {
	private := i.key.Reveal()
	out := make([]byte, 0, 64+4*(len(i.crt)+len(private)+len(i.ca))) // grows never: that would leave a copy of the key
	for _, m := range []struct {
		name string
		text []byte
	}{{`{"node_crt":[`, i.crt}, {`],"node_key":[`, private}, {`],"ca_crt":[`, i.ca}} {
		out = append(out, m.name...)
		for k, b := range m.text {
			if k > 0 {
				out = append(out, ',')
			}
			out = strconv.AppendUint(out, uint64(b), 10)
		}
	}
	return append(out, ']', '}')
}

// details are what the audit log keeps.
func (i issued) details(r request) map[string]string {
	d := map[string]string{
		"name": r.name, "ip": r.ip.String(), "expires": i.expires.UTC().Format(time.RFC3339), "fingerprint": i.fingerprint,
	}
	if len(r.groups) > 0 {
		d["groups"] = strings.Join(r.groups, ",")
	}
	if len(r.subnets) > 0 {
		var all []string
		for _, n := range r.subnets {
			all = append(all, n.String())
		}
		d["subnets"] = strings.Join(all, ",")
	}
	return d
}

// allow holds a request against what the configuration says now. The authority
// has limits of its own, from when it was made; both must allow.
func (l limits) allow(r request) error {
	for _, g := range r.groups {
		if len(l.groups) > 0 && !slices.Contains(l.groups, g) {
			return fmt.Errorf("groups: %q is none of those that the configuration allows", g)
		}
	}
	if !within(l.ips, r.ip) {
		return fmt.Errorf("ip: %s is in none of the networks that the configuration allows", r.ip)
	}
	for _, n := range r.subnets {
		if !within(l.subnets, n) {
			return fmt.Errorf("subnets: %s is in none of the networks that the configuration allows", n)
		}
	}
	if r.duration > l.duration {
		return fmt.Errorf("duration: %s is longer than that of an authority, %s", r.duration, l.duration)
	}
	return nil
}

// within reports whether a network is part of one of some; all are where none
// are named.
func within(all []netip.Prefix, n netip.Prefix) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(o netip.Prefix) bool {
		return o.Bits() <= n.Bits() && o.Contains(n.Addr())
	})
}
