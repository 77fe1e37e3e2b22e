package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// credentialDir is where the field puts credentials of services
// (guest-protocol 10.3).
const credentialDir = "/run/confidential-containers/cdh/kbs/kms-credential"

// AWSCredential is where the field looks for the credential of AWS.
const AWSCredential = credentialDir + "/aws/credential.json"

// aws is AWS KMS for envelopes and Secrets Manager for vaults. Settings are the
// field's "region" and the common ones; the credential is the field's
// credential.json.
type aws struct {
	common
	Region string `json:"region"`

	uri string
}

var region = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)

func newAWS(settings map[string]any, f files) (driver, error) {
	a := new(aws)
	if err := read("provider_settings", settings, a); err != nil {
		return nil, err
	}
	if !region.MatchString(a.Region) || len(a.Region) > 40 {
		return nil, errors.New("provider_settings: region is missing or wrong")
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	var err error
	a.uri, err = f.credential(a.Credential, AWSCredential)
	return a, err
}

func (a *aws) needs() []string { return []string{a.uri} }

func (a *aws) open(e env, credentials []secret.Bytes) (service, error) {
	d, err := parseDocument(credentials[0])
	if err != nil {
		return nil, err
	}
	key := accessKey{id: d.text("access_key_id"), secret: d.secret("secret_access_key"), session: d.secret("session_token")}
	k, err := newKeyed(e, a.Roots, key)
	if err != nil {
		return nil, err
	}
	return &awsClient{aws: a, keyed: k}, nil
}

type awsClient struct {
	*aws
	*keyed
}

// do calls an operation of a service and reads its answer into out.
func (c *awsClient) do(ctx context.Context, service, target string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.New(fault.SealedInvalid, err)
	}
	defer clear(body)
	domain := "amazonaws.com"
	if strings.HasPrefix(c.Region, "cn-") {
		domain += ".cn"
	}
	to := c.at("https://" + service + "." + c.Region + "." + domain)
	answer, err := c.caller.call(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := post(ctx, to+"/", "application/x-amz-json-1.1", body)
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Amz-Target", target)
		signAWS(req, body, c.key, c.Region, service, c.env.now())
		return req, nil
	}, judgeAWS)
	if err != nil {
		return err
	}
	return decode("AWS", answer, out)
}

// judgeAWS reads the kind of an error, which AWS gives in the body: most have
// status 400.
func judgeAWS(_ int, body []byte) (fault.Code, string) {
	var said struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal(body, &said) != nil {
		return "", ""
	}
	kind := said.Type[strings.LastIndexByte(said.Type, '#')+1:]
	switch {
	case strings.Contains(kind, "Throttl"), kind == "LimitExceededException", kind == "TooManyRequestsException":
		return fault.TooMany, kind
	case kind == "AccessDeniedException", kind == "DisabledException", kind == "KMSInvalidStateException":
		return fault.Forbidden, kind
	case kind == "NotFoundException", kind == "ResourceNotFoundException":
		return fault.NotFound, kind
	case strings.Contains(kind, "Signature"), strings.Contains(kind, "ClientToken"), kind == "UnrecognizedClientException",
		kind == "MissingAuthenticationTokenException", strings.HasPrefix(kind, "ExpiredToken"):
		return fault.Unauthenticated, kind
	}
	return "", kind
}

type awsContext struct {
	Context map[string]string `json:"encryption_context"`
}

func (c *awsClient) decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	var a awsContext
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	in := struct {
		KeyID      string            `json:"KeyId"`
		Ciphertext []byte            `json:"CiphertextBlob"`
		Context    map[string]string `json:"EncryptionContext,omitempty"`
	}{keyID, wrapped, a.Context}
	var out struct{ Plaintext []byte }
	if err := c.do(ctx, "kms", "TrentService.Decrypt", in, &out); err != nil {
		return secret.Bytes{}, err
	}
	return plaintext("AWS", out.Plaintext)
}

// plaintext takes a decrypted key over.
func plaintext(from string, key []byte) (secret.Bytes, error) {
	if len(key) == 0 {
		return secret.Bytes{}, malformed(from)
	}
	return secret.New(key), nil
}

func (c *awsClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	in := struct {
		KeyID     string `json:"KeyId"`
		Plaintext []byte
	}{keyID, key.Reveal()}
	var out struct {
		Ciphertext []byte `json:"CiphertextBlob"`
	}
	if err := c.do(ctx, "kms", "TrentService.Encrypt", in, &out); err != nil {
		return Wrapped{}, err
	}
	return wrapped("AWS", keyID, out.Ciphertext, nil)
}

// wrapped checks that a service gave a ciphertext.
func wrapped(from, keyID string, ciphertext []byte, annotations map[string]any) (Wrapped, error) {
	if len(ciphertext) == 0 {
		return Wrapped{}, malformed(from)
	}
	if annotations == nil {
		annotations = map[string]any{}
	}
	return Wrapped{KeyID: keyID, Ciphertext: ciphertext, Annotations: annotations}, nil
}

// versioned are the annotations of secrets at AWS and Alibaba.
type versioned struct {
	ID    string `json:"version_id"`
	Stage string `json:"version_stage"`
}

func (c *awsClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	var a versioned
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	in := struct {
		ID      string `json:"SecretId"`
		Version string `json:"VersionId,omitempty"`
		Stage   string `json:"VersionStage,omitempty"`
	}{name, a.ID, a.Stage}
	var out struct{ SecretString, SecretBinary json.RawMessage }
	if err := c.do(ctx, "secretsmanager", "secretsmanager.GetSecretValue", in, &out); err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out.SecretString)
	defer clear(out.SecretBinary)
	if text, err := strictjson.Text(out.SecretString); err == nil {
		return secret.Copy(text), nil
	}
	return base64Text("AWS", out.SecretBinary, base64.StdEncoding)
}

// base64Text decodes a member that is base64.
func base64Text(from string, raw json.RawMessage, e *base64.Encoding) (secret.Bytes, error) {
	text, err := strictjson.Text(raw)
	if err != nil {
		return secret.Bytes{}, malformed(from)
	}
	value := make([]byte, e.DecodedLen(len(text)))
	n, err := e.Decode(value, text)
	if err != nil {
		clear(value)
		return secret.Bytes{}, malformed(from)
	}
	return secret.New(value[:n]), nil
}
