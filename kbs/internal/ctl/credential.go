package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// oidcContext is where a context's tokens come from.
type oidcContext struct {
	Issuer      string   `yaml:"issuer" json:"issuer"`
	ClientID    string   `yaml:"client-id" json:"client_id"`
	Scopes      []string `yaml:"scopes,omitempty" json:"scopes,omitempty"`
	CA          string   `yaml:"ca,omitempty" json:"ca,omitempty"`
	AccessToken bool     `yaml:"access-token,omitempty" json:"access_token,omitempty"`
}

// execContext is a program that gives tokens. It prints an ExecCredential as
// kubectl's credential plugins do: {"status": {"token": "..."}}.
type execContext struct {
	Command string            `yaml:"command" json:"command"`
	Args    []string          `yaml:"args,omitempty" json:"args,omitempty"`
	Env     map[string]string `yaml:"env,omitempty" json:"env,omitempty"`
}

// Limits of a credential plugin.
const (
	execTimeout = 5 * time.Minute // it may have to ask a person
	maxExec     = 64 << 10        // bytes of its answer
)

// run asks the plugin, once for all requests of one command.
func (x execContext) once(c *cli) func(context.Context) (secret.Bytes, error) {
	var mu sync.Mutex
	var token secret.Bytes
	return func(ctx context.Context) (secret.Bytes, error) {
		mu.Lock()
		defer mu.Unlock()
		if token.Len() > 0 {
			return token, nil
		}
		var err error
		token, err = x.run(ctx, c)
		return token, err
	}
}

func (x execContext) run(ctx context.Context, c *cli) (secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, x.Command, x.Args...) //nolint:gosec // the owner of the config file says what runs
	cmd.Env = append(os.Environ(), `KUBERNETES_EXEC_INFO={"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":true}}`)
	for k, v := range x.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out := &limited{max: maxExec}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdio.In, out, c.stdio.Err
	if err := cmd.Run(); err != nil {
		return secret.Bytes{}, usagef("credential plugin %s: %w", x.Command, err)
	}
	token, err := parseExec(out.Bytes(), c.now())
	if err != nil {
		return secret.Bytes{}, usagef("credential plugin %s: %w", x.Command, err)
	}
	return token, nil
}

// parseExec reads what a plugin printed. What it says is never in an error.
func parseExec(raw []byte, now time.Time) (secret.Bytes, error) {
	var answer struct {
		Kind   string `json:"kind"`
		Status struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expirationTimestamp"`
		} `json:"status"`
	}
	if json.Unmarshal(raw, &answer) != nil || (answer.Kind != "" && answer.Kind != "ExecCredential") {
		return secret.Bytes{}, errors.New("it printed no ExecCredential")
	}
	if !answer.Status.Expires.IsZero() && !now.Before(answer.Status.Expires) {
		return secret.Bytes{}, errors.New("it gave a token that has expired")
	}
	return admin.ParseToken([]byte(answer.Status.Token))
}

// limited is a buffer that refuses more than max bytes.
type limited struct {
	bytes.Buffer

	max int
}

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > l.max {
		return 0, fmt.Errorf("more than %d bytes", l.max)
	}
	return l.Buffer.Write(b)
}

// private refuses a config file that others can write: it says what kbsctl
// runs, and where it sends tokens.
func (f *configFile) private() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return usagef("%s can be written by other users, and it says what to run", f.path).hint("chmod 600 %s", f.path)
	}
	return nil
}

func tlsFor(pool *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
