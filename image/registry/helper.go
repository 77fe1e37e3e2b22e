package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// A Helper asks the credential helper of the given name for the credential of
// a server. Without an error, an empty answer means that it has none. The user
// "<token>" marks an identity token.
type Helper func(ctx context.Context, name, server string) (user, password string, err error)

var helperForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

const maxHelperAnswer = 1 << 20 // bytes

// ExecHelper runs docker-credential-<name> from the path. It is for tools: it
// gives its environment to a program that a file named.
func ExecHelper(ctx context.Context, name, server string) (user, password string, err error) {
	if !helperForm.MatchString(name) {
		return "", "", fmt.Errorf("credential helper %.80q: not a name", name)
	}
	out := &limitedBuffer{left: maxHelperAnswer}
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get") //nolint:gosec // the name has no path
	cmd.Stdin, cmd.Stdout = strings.NewReader(server), out
	err = cmd.Run()
	if err != nil {
		if strings.Contains(out.buf.String(), "credentials not found") { // the protocol's word for none
			return "", "", nil
		}
		return "", "", fmt.Errorf("credential helper %s: %w", name, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.buf.Bytes(), &answer) != nil { // the error could quote the answer
		return "", "", fmt.Errorf("credential helper %s: not an answer", name)
	}
	return answer.Username, answer.Secret, nil
}

// limitedBuffer hides the buffer's ReadFrom, which knows no limit.
type limitedBuffer struct {
	buf  bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	return b.buf.Write(p)
}

// helped returns what the helper for the host will say when it is asked.
func (c credentials) helped(host string) authn.Authenticator {
	name := c.helpers[host]
	if name == "" {
		name = c.store
	}
	if name == "" || c.ask == nil {
		return authn.Anonymous
	}
	server := host
	if host == dockerHub {
		server = "https://index.docker.io/v1/" // under this docker keeps it
	}
	return &helped{ask: c.ask, name: name, server: server}
}

type helped struct {
	ask          Helper
	name, server string
}

// Authorization is used where there is no context.
func (h *helped) Authorization() (*authn.AuthConfig, error) {
	return h.AuthorizationContext(context.Background())
}

// AuthorizationContext asks anew each time: helpers give out tokens that end.
func (h *helped) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	user, password, err := h.ask(ctx, h.name, h.server)
	switch {
	case err != nil:
		return nil, err
	case user == "<token>":
		return &authn.AuthConfig{IdentityToken: password}, nil
	}
	return &authn.AuthConfig{Username: user, Password: password}, nil
}
