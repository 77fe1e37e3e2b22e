package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// aliyun is Alibaba's Key Management Service, with the settings of the field.
// Its client types are
//
//	client_key    the gateway of a KMS instance; see aliyunInstance
//	sts_token     the public gateway, with an access key ID:SECRET[:TOKEN]; the
//	              field knows it with a token and for secrets alone
//	ecs_ram_role  refused: its keys come from the metadata service, so from
//	              whoever runs the machine
type aliyun struct {
	common
	ClientType string `json:"client_type"`
	Region     string `json:"region_id"`
	TokenPath  string `json:"token_path"`
	ClientKey  string `json:"client_key_id"`
	Instance   string `json:"kms_instance_id"`

	uris []string
}

var aliyunID = form{regexp.MustCompile(`^[\w.-]+$`), 64}

func newAliyun(settings map[string]any, f files) (driver, error) {
	a := new(aliyun)
	if err := read("provider_settings", settings, a); err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	switch a.ClientType {
	case "sts_token":
		return a.public(f)
	case "client_key":
		return a.instance(f)
	case "ecs_ram_role":
		return nil, fault.Newf(fault.Unsupported, "client_type ecs_ram_role: its credentials are what the host's metadata service says")
	}
	return nil, errors.New("provider_settings: client_type is neither client_key nor sts_token")
}

func (a *aliyun) public(f files) (driver, error) {
	if !region.MatchString(a.Region) || len(a.Region) > 40 || a.ClientKey != "" || a.Instance != "" {
		return nil, errors.New("provider_settings: sts_token has region_id, and a credential or a token_path")
	}
	uri, err := f.credential(a.Credential, a.TokenPath)
	a.uris = []string{uri}
	return a, err
}

func (a *aliyun) needs() []string { return a.uris }

func (a *aliyun) open(e env, credentials []secret.Bytes) (service, error) {
	parts := bytes.Split(bytes.TrimSpace(credentials[0].Reveal()), []byte(":"))
	if len(parts) != 2 && len(parts) != 3 {
		return nil, fault.Newf(fault.Unauthenticated, "the credential is not ID:SECRET[:TOKEN]")
	}
	key := accessKey{id: string(parts[0]), secret: secret.Copy(parts[1])}
	if len(parts) == 3 {
		key.session = secret.Copy(parts[2])
	}
	k, err := newKeyed(e, a.Roots, key)
	if err != nil {
		return nil, err
	}
	return &aliyunClient{aliyun: a, keyed: k}, nil
}

// aliyunClient asks the public gateway.
type aliyunClient struct {
	*aliyun
	*keyed
}

// do calls an action of version 2016-01-20, whose parameters are the query.
func (c *aliyunClient) do(ctx context.Context, action string, parameters url.Values, out any) error {
	// What is signed is encoded as RFC 3986 says.
	query := strings.ReplaceAll(parameters.Encode(), "+", "%20")
	to := c.at("https://kms."+c.Region+".aliyuncs.com") + "/?" + query
	answer, err := c.caller.call(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, nil)
		if err != nil {
			return nil, fault.New(fault.SealedInvalid, transportError(err))
		}
		req.Header.Set("X-Acs-Action", action)
		req.Header.Set("X-Acs-Version", "2016-01-20")
		signAliyun(req, nil, c.key, nonce(), c.env.now())
		return req, nil
	}, judgeAliyun)
	if err != nil {
		return err
	}
	return decode("Alibaba", answer, out)
}

func nonce() string { return hex.EncodeToString(secret.Random(16).Reveal()) }

func judgeAliyun(status int, body []byte) (fault.Code, string) {
	var said struct {
		Code string `json:"Code"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	return ofAliyun(status, said.Code), said.Code
}

// ofAliyun is what an error of either gateway means.
func ofAliyun(status int, kind string) fault.Code {
	switch {
	case strings.HasPrefix(kind, "Throttling"):
		return fault.TooMany
	case strings.HasSuffix(kind, "NotFound"): // Forbidden.KeyNotFound, Forbidden.ResourceNotFound
		if strings.HasPrefix(kind, "InvalidAccessKeyId") {
			return fault.Unauthenticated
		}
		return fault.NotFound
	case strings.HasPrefix(kind, "InvalidSecurityToken"), strings.HasPrefix(kind, "SignatureDoesNotMatch"), strings.HasPrefix(kind, "IncompleteSignature"):
		return fault.Unauthenticated
	case strings.HasPrefix(kind, "Forbidden"), strings.HasPrefix(kind, "Rejected"):
		return fault.Forbidden
	}
	return ofStatus(status)
}

func (c *aliyunClient) secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error) {
	var a versioned
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	parameters := url.Values{"SecretName": {name}}
	if a.ID != "" {
		parameters.Set("VersionId", a.ID)
	}
	if a.Stage != "" {
		parameters.Set("VersionStage", a.Stage)
	}
	var out struct{ SecretData json.RawMessage }
	if err := c.do(ctx, "GetSecretValue", parameters, &out); err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out.SecretData)
	text, err := strictjson.Text(out.SecretData)
	if err != nil {
		return secret.Bytes{}, malformed("Alibaba")
	}
	return secret.Copy(text), nil // of a binary secret its base64, as in the field
}

// aliyunContext is for the public gateway, the iv for an instance's.
type aliyunContext struct {
	Context map[string]string `json:"encryption_context"`
}

func (c *aliyunClient) decrypt(ctx context.Context, _ string, wrapped []byte, annotations map[string]any) (secret.Bytes, error) {
	var a aliyunContext
	if err := annotated(annotations, &a); err != nil {
		return secret.Bytes{}, err
	}
	parameters := url.Values{"CiphertextBlob": {string(wrapped)}} // the gateway's own text
	if len(a.Context) > 0 {
		raw, err := json.Marshal(a.Context)
		if err != nil {
			return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
		}
		parameters.Set("EncryptionContext", string(raw))
	}
	var out struct{ Plaintext json.RawMessage }
	if err := c.do(ctx, "Decrypt", parameters, &out); err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out.Plaintext)
	return base64Text("Alibaba", out.Plaintext, base64.StdEncoding)
}

func (c *aliyunClient) encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error) {
	parameters := url.Values{"KeyId": {keyID}, "Plaintext": {base64.StdEncoding.EncodeToString(key.Reveal())}}
	var out struct{ CiphertextBlob string }
	if err := c.do(ctx, "Encrypt", parameters, &out); err != nil {
		return Wrapped{}, err
	}
	return wrapped("Alibaba", keyID, []byte(out.CiphertextBlob), nil)
}
