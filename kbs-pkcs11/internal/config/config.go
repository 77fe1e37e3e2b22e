// Package config reads the settings of the process that talks to the token.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	maxFile     = 64 << 10
	maxPIN      = 256
	maxSessions = 256
	maxLabel    = 128
	maxHang     = 600
)

// Config is the file. Relative paths are relative to it.
type Config struct {
	// Socket is where the broker asks, a unix socket that only the owner may
	// open.
	Socket string `toml:"socket"`
	// Module is the token's PKCS#11 library.
	Module string `toml:"module"`
	// Token is the label of the token.
	Token string `toml:"token"`
	// PINFile holds the user's PIN, with or without a newline; only the owner
	// may read it.
	PINFile string `toml:"pin_file"`
	// Sessions is how many operations run at once on the token.
	Sessions int `toml:"sessions"`
	// HangSeconds is how long one operation of the module may take. One that
	// takes longer ends the process: what started it starts it again.
	HangSeconds int `toml:"hang_seconds"`

	// What is served; at least one of the three.

	// MasterKey is the label of the AES keys that wrap the broker's keys.
	MasterKey string `toml:"master_key"`
	// Resources says that objects with labels of three segments, such as
	// default/key/1, are values that the broker may read and write.
	Resources bool `toml:"resources"`
	// LookupLabel is the label of the RSA key pair of the field's wrap-key, and
	// RSAMechanism how it seals (kbs-protocol 8).
	LookupLabel  string        `toml:"lookup_label"`
	RSAMechanism token.Padding `toml:"rsa_mechanism"`
}

// Hang is how long one operation may take.
func (c Config) Hang() time.Duration { return time.Duration(c.HangSeconds) * time.Second }

// Pair is the key pair of wrap-key; ok is false if there is none.
func (c Config) Pair() (p token.Pair, ok bool) {
	return token.Pair{Label: c.LookupLabel, Padding: c.RSAMechanism}, c.LookupLabel != ""
}

// Load reads, completes and validates a file.
func Load(path string) (Config, error) {
	c := Config{Sessions: 8, HangSeconds: 20, RSAMechanism: token.OAEP}
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return c, err
	}
	if err := parse(raw, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	for _, p := range []*string{&c.Socket, &c.Module, &c.PINFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func parse(raw []byte, c *Config) error {
	if len(raw) > maxFile {
		return fmt.Errorf("more than %d bytes", maxFile)
	}
	err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(c)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: %s: unknown key", row, strings.Join(strict.Errors[0].Key(), "."))
	}
	return err
}

func (c Config) validate() error {
	var all []error
	for _, s := range []struct {
		key, value string
		limit      int
	}{
		{"socket", c.Socket, 100}, {"module", c.Module, 4096}, {"token", c.Token, 32}, {"pin_file", c.PINFile, 4096},
	} {
		if s.value == "" || len(s.value) > s.limit {
			all = append(all, fmt.Errorf("%s: needs 1 to %d bytes, has %d", s.key, s.limit, len(s.value)))
		}
	}
	for key, value := range map[string]string{"master_key": c.MasterKey, "lookup_label": c.LookupLabel} {
		if len(value) > maxLabel {
			all = append(all, fmt.Errorf("%s: at most %d bytes, has %d", key, maxLabel, len(value)))
		}
	}
	if c.MasterKey == "" && c.LookupLabel == "" && !c.Resources {
		all = append(all, errors.New("nothing is served: set master_key, resources or lookup_label"))
	}
	if p := c.RSAMechanism; p != token.OAEP && p != token.OAEPSHA1 && p != token.Test {
		all = append(all, fmt.Errorf("rsa_mechanism: must be %s, %s or %s, is %q", token.OAEP, token.OAEPSHA1, token.Test, p))
	}
	if c.HangSeconds < 1 || c.HangSeconds > maxHang {
		all = append(all, fmt.Errorf("hang_seconds: must be from 1 to %d, is %d", maxHang, c.HangSeconds))
	}
	if c.Sessions < 1 || c.Sessions > maxSessions {
		all = append(all, fmt.Errorf("sessions: must be from 1 to %d, is %d", maxSessions, c.Sessions))
	}
	return errors.Join(all...)
}

// PIN reads the user's PIN. A file that others may read is refused.
func (c Config) PIN() (secret.Bytes, error) {
	f, err := os.OpenFile(c.PINFile, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("pin_file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("pin_file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("pin_file: %s has mode %v, and only its owner may have access", c.PINFile, info.Mode())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxPIN+3))
	defer clear(raw)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("pin_file: %w", err)
	}
	pin := bytes.TrimRight(raw, "\r\n")
	if len(pin) == 0 || len(pin) > maxPIN {
		return secret.Bytes{}, fmt.Errorf("pin_file: %s must hold 1 to %d bytes", c.PINFile, maxPIN)
	}
	return secret.Copy(pin), nil
}
