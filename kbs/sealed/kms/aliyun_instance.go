package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/crypto/pkcs12"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// aliyunInstance is the gateway of one KMS instance (guest-protocol 2.4, 10.3):
// protocol buffers over HTTPS, signed with an RSA key that Alibaba hands out as
// PKCS #12, and a certificate authority of its own. The credential is three
// resources, at the paths that the field has for them.
type aliyunInstance struct{ *aliyun }

func (a *aliyun) instance(f files) (driver, error) {
	if !aliyunID.fits(a.ClientKey) || !aliyunID.fits(a.Instance) || a.Region != "" || a.TokenPath != "" || a.Credential != "" || a.Roots != "" {
		return nil, errors.New("provider_settings: client_key has client_key_id and kms_instance_id alone")
	}
	dir := credentialDir + "/aliyun/"
	for _, name := range []string{"PrivateKmsCA_" + a.Instance + ".pem", "password_" + a.ClientKey + ".json", "clientKey_" + a.ClientKey + ".json"} {
		uri, err := f.credential("", dir+name)
		if err != nil {
			return nil, err
		}
		a.uris = append(a.uris, uri)
	}
	return aliyunInstance{a}, nil
}

func (a aliyunInstance) open(e env, credentials []secret.Bytes) (service, error) {
	ca, password, file := credentials[0], credentials[1], credentials[2]
	d, err := parseDocument(file)
	if err != nil {
		return nil, err
	}
	bundle := d.secret("PrivateKeyData")
	defer bundle.Destroy()
	key, err := pkcs12Key(bundle, password)
	if err != nil {
		return nil, err
	}
	id := d.text("KeyId")
	if !aliyunID.fits(id) {
		return nil, fault.Newf(fault.Unauthenticated, "the credential has no KeyId")
	}
	if ca.Len() == 0 {
		return nil, fault.Newf(fault.Unauthenticated, "the instance's CA is empty")
	}
	c, err := newCaller(e, string(ca.Reveal()))
	if err != nil {
		return nil, err
	}
	return &instanceClient{aliyun: a.aliyun, id: id, key: key, caller: c, env: e}, nil
}

// pkcs12Key reads the key of a bundle in base64.
func pkcs12Key(bundle, password secret.Bytes) (*rsa.PrivateKey, error) {
	der := make([]byte, base64.StdEncoding.DecodedLen(bundle.Len()))
	defer clear(der)
	n, err := base64.StdEncoding.Decode(der, bundle.Reveal())
	if err != nil {
		return nil, fault.Newf(fault.Unauthenticated, "the credential's PrivateKeyData is not base64")
	}
	blocks, err := pkcs12.ToPEM(der[:n], string(bytes.TrimRight(password.Reveal(), "\r\n ")))
	if err != nil {
		return nil, fault.Newf(fault.Unauthenticated, "the credential's PKCS #12: %w", err)
	}
	for _, b := range blocks {
		defer clear(b.Bytes)
		if b.Type != "PRIVATE KEY" {
			continue
		}
		if key, err := parseRSA(b.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, fault.Newf(fault.Unauthenticated, "the credential's PKCS #12 holds no RSA key")
}

// instanceClient asks the gateway of an instance.
type instanceClient struct {
	*aliyun
	id     string
	key    *rsa.PrivateKey
	caller *caller
	env    env
}

func (c *instanceClient) close() { c.caller.close() }

const instanceContent = "application/x-protobuf"

// do calls an operation and returns the fields of the answer. The caller clears
// them.
func (c *instanceClient) do(ctx context.Context, name string, message []byte) (map[protowire.Number][]byte, error) {
	to := c.at("https://" + c.Instance + ".cryptoservice.kms.aliyuncs.com")
	answer, err := c.caller.call(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := post(ctx, to+"/", instanceContent, message)
		if err != nil {
			return nil, err
		}
		return req, c.sign(req, name, message)
	}, judgeInstance)
	if err != nil {
		return nil, err
	}
	fields, err := parseFields(answer)
	if err != nil {
		clear(answer)
		return nil, malformed("Alibaba")
	}
	return fields, nil
}

// sign signs a request as guest-protocol 10.3 says; the third c in one of the
// names is the gateway's.
func (c *instanceClient) sign(req *http.Request, name string, body []byte) error {
	date := c.env.now().UTC().Format(http.TimeFormat)
	sum := sha256.Sum256(body)
	sha := strings.ToUpper(hex.EncodeToString(sum[:]))
	own := map[string]string{
		"x-kms-apiversion": "dkms-gcs-0.2", "x-kms-apiname": name,
		"x-kms-signaturemethod": "RSA_PKCS1_SHA_256", "x-kms-acccesskeyid": c.id,
	}
	text := "POST\n" + sha + "\n" + instanceContent + "\n" + date + "\n"
	for _, k := range slices.Sorted(maps.Keys(own)) {
		req.Header.Set(k, own[k])
		text += k + ":" + own[k] + "\n"
	}
	hash := sha256.Sum256([]byte(text + "/"))
	signature, err := rsa.SignPKCS1v15(nil, c.key, crypto.SHA256, hash[:])
	if err != nil {
		return fault.Newf(fault.Unauthenticated, "the credential's key does not sign: %w", err)
	}
	req.Header.Set("Accept", instanceContent)
	req.Header.Set("Date", date)
	req.Header.Set("Content-Sha256", sha)
	req.Header.Set("Authorization", "Bearer "+base64.StdEncoding.EncodeToString(signature))
	return nil
}

func judgeInstance(status int, body []byte) (fault.Code, string) {
	fields, err := parseFields(body)
	if err != nil {
		return "", ""
	}
	kind := string(fields[2]) // Error.ErrorCode
	return ofAliyun(status, kind), kind
}

// parseFields reads the fields of a message that are bytes or text; of a field
// that comes twice the last one counts, and numbers are skipped.
func parseFields(raw []byte) (map[protowire.Number][]byte, error) {
	fields := map[protowire.Number][]byte{}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			fields[number], raw = value, raw[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, raw); n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
	}
	return fields, nil
}

// message makes a message of fields that are bytes or text, and not empty.
func message(fields ...[]byte) (raw []byte) {
	for i, value := range fields {
		if len(value) > 0 {
			raw = protowire.AppendTag(raw, protowire.Number(i+1), protowire.BytesType)
			raw = protowire.AppendBytes(raw, value)
		}
	}
	return raw
}

var aesGCM = []byte("AES_GCM")

// instanceIV is the annotation that an envelope needs.
type instanceIV struct {
	IV []byte `json:"iv"` // base64
}

func (c *instanceClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	var a versioned
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	in := message([]byte(name), []byte(a.Stage), []byte(a.ID))
	in = protowire.AppendVarint(protowire.AppendTag(in, 4, protowire.VarintType), 1) // FetchExtendedConfig
	out, err := c.do(ctx, "GetSecretValue", in)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out[3])
	return plaintext("Alibaba", bytes.Clone(out[3]))
}

func (c *instanceClient) decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	var a instanceIV
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	out, err := c.do(ctx, "Decrypt", message(wrapped, []byte(keyID), aesGCM, nil, a.IV))
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out[2])
	return plaintext("Alibaba", bytes.Clone(out[2]))
}

func (c *instanceClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	in := message([]byte(keyID), key.Reveal(), aesGCM)
	defer clear(in)
	out, err := c.do(ctx, "Encrypt", in)
	if err != nil {
		return Wrapped{}, err
	}
	iv := base64.StdEncoding.EncodeToString(out[3])
	return wrapped("Alibaba", keyID, bytes.Clone(out[2]), map[string]any{"iv": iv})
}
