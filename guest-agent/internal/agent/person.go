package agent

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/attester"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Person is a person in the guest who tries what the agent would do: the same
// settings, attester and client, for one question.
type Person struct {
	Options
	BrokerURL string // before that of the settings
	BrokerCA  string // PEM file; before that of the settings
}

// Evidence obtains evidence over 64 bytes, given as base64 or hex; less is
// fitted into the platform's field. It returns the JSON that the wire carries.
func (p Person) Evidence(ctx context.Context, data string) (json.RawMessage, error) {
	raw, err := hex.DecodeString(data)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(data); err != nil {
			return nil, errors.New("the report data is neither hex nor base64")
		}
	}
	guest, err := attester.Open(ctx, p.attesterOptions(p.logger()))
	if err != nil {
		return nil, err
	}
	ev, err := measure.EvidenceOver(ctx, guest.Attester, raw)
	return ev.Data, err
}

// Token attests to the broker and returns the token that it gave.
func (p Person) Token(ctx context.Context) (client.Token, error) {
	c, err := p.client(ctx)
	if err != nil {
		return client.Token{}, err
	}
	defer c.Close()
	t, err := c.Token(ctx)
	return t, told(err)
}

// Resource attests to the broker and fetches what it releases to this guest.
func (p Person) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	c, err := p.client(ctx)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer c.Close()
	value, err := c.Resource(ctx, uri)
	return value, told(err)
}

// told adds the reason to a failure of this side: the broker was not reached, or the
// question was none. What a broker refuses has its reason behind the ticket alone.
func told(err error) error {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Ticket != "" || f.Cause() == nil || f.Code != fault.Unavailable && f.Code != fault.InvalidRequest {
		return err
	}
	return fmt.Errorf("%w: %w", err, f.Cause())
}

func (p Person) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// client believes the init-data only if the hardware was launched with it, as
// the agent does.
func (p Person) client(ctx context.Context) (*client.Client, error) {
	s, err := load(p.Options)
	if err != nil {
		return nil, err
	}
	guest, err := attester.Open(ctx, p.attesterOptions(p.logger()))
	if err != nil {
		return nil, err
	}
	if err := settings.CheckBinding(ctx, s.InitData, guest.Attester); err != nil {
		return nil, fmt.Errorf("init-data: %w", err)
	}
	if p.BrokerURL != "" {
		s.Broker.URL, s.Broker.RootCertificates = p.BrokerURL, nil
	}
	if p.BrokerCA != "" {
		if s.Broker.RootCertificates, err = readFile(p.BrokerCA); err != nil {
			return nil, err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(s.Broker.RootCertificates) {
			return nil, fmt.Errorf("%s holds no certificate", p.BrokerCA)
		}
	}
	c, err := newBroker(s, s.Broker, guest.Attester, p.logger())
	if err == nil && c == nil {
		err = errors.New("no broker is known: neither the settings nor --kbs name one")
	}
	return c, err
}
