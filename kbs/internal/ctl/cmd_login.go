package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/login"
)

const loginLong = `Log in at the identity provider of a context, by the OAuth device flow: kbsctl
shows an address and a code, and a browser on any machine does the rest. The
token is kept beside the config file, readable by its owner only, until it ends;
there is no way to renew it but to log in again.

The provider is that of the context, or the one that the flags name; then the
context remembers it.`

func (c *cli) loginCommand() *cobra.Command {
	var o oidcContext
	cmd := &cobra.Command{
		Use:   "login [--issuer URL --client-id ID]",
		Short: "Get a token from an identity provider",
		Long:  loginLong,
		Example: `  kbsctl login --issuer https://idp.example/realms/prod --client-id kbsctl --scope groups
  kbsctl login --context prod`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.login(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.Issuer, "issuer", "", "`URL` of the OpenID Connect provider")
	cmd.Flags().StringVar(&o.ClientID, "client-id", "", "`ID` of kbsctl at the provider")
	cmd.Flags().StringArrayVar(&o.Scopes, "scope", nil, "`SCOPE` to ask for beside openid (repeatable)")
	cmd.Flags().StringVar(&o.CA, "issuer-ca", "", "PEM `FILE` of the CA that signed the provider's certificate")
	cmd.Flags().BoolVar(&o.AccessToken, "access-token", false, "use the access token in the place of the ID token")
	return cmd
}

func (c *cli) login(ctx context.Context, flags oidcContext) error {
	cfg, err := loadConfig(configPath(c.env))
	if err != nil {
		return err
	}
	x, err := cfg.chosen(c, flags.Issuer != "")
	if err != nil {
		return err
	}
	if flags.Issuer != "" {
		if flags.CA != "" {
			if flags.CA, err = filepath.Abs(flags.CA); err != nil {
				return err
			}
		}
		x.OIDC = &flags
	}
	if x.OIDC == nil || x.OIDC.Issuer == "" || x.OIDC.ClientID == "" {
		return usagef("the context %q names no identity provider", x.Name).hint("kbsctl login --issuer URL --client-id ID")
	}
	token, err := c.device(ctx, *x.OIDC, cfg)
	if err != nil {
		return doing(err, "log in at %s", x.OIDC.Issuer)
	}
	x.TokenFile = filepath.Join("tokens", x.Name)
	if err := replaceFile(cfg.abs(x.TokenFile), append(token.Text.Reveal(), '\n')); err != nil {
		return err
	}
	cfg.replace(x)
	if err := cfg.save(); err != nil {
		return err
	}
	if token.Expires > 0 {
		return c.printf("context/%s logged in for %s\n", x.Name, token.Expires.Round(time.Second))
	}
	return c.printf("context/%s logged in\n", x.Name)
}

// device runs the flow. What a person has to do is a message, not data.
func (c *cli) device(ctx context.Context, o oidcContext, cfg *configFile) (login.Token, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if o.CA != "" {
		pool, err := readCA(cfg.abs(o.CA))
		if err != nil {
			return login.Token{}, err
		}
		transport.TLSClientConfig = tlsFor(pool)
	}
	return login.Device(ctx, login.Config{
		Issuer: o.Issuer, ClientID: o.ClientID, Scopes: o.Scopes, AccessToken: o.AccessToken,
		HTTP: &http.Client{Transport: transport, Timeout: c.flags.timeout},
		Prompt: func(uri, code, complete string) {
			c.warnf("go to %s and type %s", clean(uri), clean(code))
			if complete != "" {
				c.warnf("or go to %s", clean(complete))
			}
		},
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-c.after(d):
				return nil
			}
		},
	})
}

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Revoke the token of a context and forget it",
		Long: `Revoke the context's token at the broker, so that no copy of it is good for
anything any more, and delete the file that login wrote.`,
		Example: "  kbsctl logout",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(configPath(c.env))
			if err != nil {
				return err
			}
			x, err := cfg.chosen(c, false)
			if err != nil {
				return err
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			if _, err := a.Revoke(cmd.Context(), api.RevocationRequest{Own: true, Reason: "logout"}); err != nil {
				return doing(err, "revoke the token")
			}
			if x.TokenFile == filepath.Join("tokens", x.Name) { // else it is not ours to delete
				if err := os.Remove(cfg.abs(x.TokenFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return c.printf("context/%s logged out\n", x.Name)
		},
	}
}

func (c *cli) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Show what the broker makes of the credential",
		Example: "  kbsctl whoami",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			me, err := a.WhoAmI(cmd.Context())
			if err != nil {
				return doing(err, "ask the broker")
			}
			if c.flags.output != "table" {
				return c.printData(me)
			}
			s := &sheet{w: c.stdio.Out}
			s.line("name", me.Name)
			s.line("issuer", me.Issuer)
			s.line("tenant", me.Tenant)
			for _, r := range me.Roles {
				s.line("role", fmt.Sprintf("%-10s of %s", r.Role, tenantNames(r.Tenants)))
			}
			s.line("claim", me.Claim)
			s.line("token", me.TokenID)
			s.line("expires", stamp(me.Expires, c.now()))
			if me.Insecure {
				s.line("warning", "the broker asks nobody for a credential")
			}
			return s.err
		},
	}
}

func tenantNames(all []string) string {
	out := ""
	for i, t := range all {
		if t == api.AnyTenant {
			return "the whole broker"
		}
		if i > 0 {
			out += ", "
		}
		out += t
	}
	return out
}
