// Package settings gathers what configures the guest and says how far each
// source may be trusted.
//
// There are two sources, and a third that belongs to the second. The init-data document comes from the pod's owner
// through the untrusted host and is bound to the launch: its digest stands in
// the hardware report, and [CheckBinding] compares the two before anything in
// it is believed. The kernel command line is part of the launch measurement.
// Both reach the broker in evidence, so a host that changes either gets no keys.
// The command line may name a configuration file, which is part of the image,
// and so of the launch measurement too.
//
// Unknown keys are ignored, as the components that we replace do, but each is
// reported in [Settings.Warnings]. Known keys whose meaning is a check that is
// not built yet are refused: ignoring them would open what the owner closed.
package settings

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Names of the documents inside init-data (guest-protocol 5.1).
const (
	DocumentAA     = "aa.toml"
	DocumentCDH    = "cdh.toml"
	DocumentPolicy = "policy.rego"
)

// Sources are the raw bytes that configure the guest.
type Sources struct {
	// CommandLine is the kernel command line, the text of /proc/cmdline.
	CommandLine string
	// InitData is the document as raw TOML or in the block-device form
	// (guest-protocol 5.2). Empty means that none was given.
	InitData []byte
	// ConfigFile names the agent's configuration file; empty: what the command
	// line says. Both wants, and gets, a file of the measured image.
	ConfigFile string
	// ReadImage reads a file of the image, and refuses one of anybody else; nil
	// refuses all.
	ReadImage func(path string) ([]byte, error)
	// Getenv looks into the environment; nil leaves it out.
	Getenv func(name string) string
}

func (src Sources) image(path string) ([]byte, error) {
	if src.ReadImage == nil {
		return nil, errors.New("no file of the image can be read here")
	}
	return src.ReadImage(path)
}

// Settings is everything that configures the guest, validated.
type Settings struct {
	Agent    Agent
	InitData *initdata.Document // nil when none was given
	Broker   Broker
	// Standby are further brokers, in the order in which they stand in for Broker.
	Standby []Broker
	// AttestationService gives tokens of type coco_as.
	AttestationService AttestationService
	// Access is which container of the pod may have what; none: whoever can ask.
	Access []AccessRule
	// Leases is how long what the pod was lent is kept.
	Leases Leases
	// Credentials are written to files before anything is served.
	Credentials []Credential
	// AttestationSocket and DataHubSocket are where the documents want the
	// services of these components: unix://PATH, or the address of their gRPC form
	// on loopback. Empty: as the command line says.
	AttestationSocket, DataHubSocket string
	Image                            Image
	EventLog                         EventLog
	// SkipSealedVerification accepts sealed secrets that nobody signed.
	SkipSealedVerification bool
	// InsecureTokenKeyPairs hands tokens out with the private key that answers to
	// them are sealed to: insecure_token_keypairs of [vouchsafe] in cdh.toml.
	InsecureTokenKeyPairs bool
	// Warnings names each key that was seen and ignored.
	Warnings []string
}

// Agent is what the kernel command line sets (kata-agent 3.2).
type Agent struct {
	LogLevel         slog.Level
	LogPort          uint32        // agent.log_vport; 0: the log goes to the console
	ServerAddr       string        // agent.server_addr, default "vsock://-1:1024"
	DataHubTimeout   time.Duration // agent.cdh_api_timeout, default 50 s
	HotplugTimeout   time.Duration // agent.hotplug_timeout, default 3 s
	ImagePullTimeout time.Duration // agent.image_pull_timeout, default 1200 s
	RESTFeatures     string        // agent.guest_components_rest_api, default "resource"
	Components       Components    // agent.guest_components_procs, default REST: all
	PipeSize         int           // agent.container_pipe_size in bytes; 0: the usual
	// Endpoints are the requests that are answered at all, endpoints.allowed of the
	// configuration file; nil for all, and empty for none.
	Endpoints []string
	// GuestHooks is the directory of programs of the image that a host may have
	// run around containers: vouchsafe.guest_hooks; empty for none.
	GuestHooks string
	// InsecureNoPolicy lets containers run although no policy judges what the
	// host asks for. Both of its sources are measured, so that a broker's policy
	// sees it: insecure_no_agent_policy of [vouchsafe] in cdh.toml, or
	// vouchsafe.insecure_no_agent_policy on the command line. It has no effect
	// beside a policy.
	InsecureNoPolicy bool
	// Policy is policy.rego of init-data, or else the file of the image that the
	// configuration names. It judges what the host asks for; empty for none. It is
	// not compiled yet.
	Policy string
	// ListenTLS is for a listener on TCP: [vouchsafe.listen_tls] in cdh.toml.
	ListenTLS ListenTLS
	// InsecureLearnPolicy refuses nothing that the policy refuses, and logs it:
	// insecure_learn_agent_policy of [vouchsafe] in cdh.toml.
	InsecureLearnPolicy bool
	// InsecureNoStorageIntegrity lets the host alter, unnoticed, what pods write
	// to encrypted emptyDir volumes on its disks: agent.secure_storage_integrity
	// is false.
	InsecureNoStorageIntegrity bool
	// ImageDisk is the node of an empty disk of the host's. Images and what
	// containers write are kept on it, encrypted with a random key and with
	// integrity: vouchsafe.image_disk of the command line, or image_disk of
	// [vouchsafe] in cdh.toml. Empty keeps them where the state directory lies.
	ImageDisk string
}

// ListenTLS is what the agent and a runtime that reaches it over TCP know each
// other by, all PEM. The host sees init-data, so this key proves to nobody that
// the guest is genuine: it keeps strangers of the network out, as the field's
// forwarder does; attestation proves the rest.
type ListenTLS struct {
	Certificate []byte
	Key         secret.Bytes
	ClientCA    []byte
}

// Set tells whether there is any.
func (l ListenTLS) Set() bool { return len(l.Certificate) > 0 }

// Broker says where the key broker is.
type Broker struct {
	// URL has no trailing slash. Empty means that no broker is configured: then
	// no resource can be had.
	URL string
	// RootCertificates is the PEM that the broker's certificate must end in.
	// Empty means the system's roots.
	RootCertificates []byte
	// InsecurePlainHTTP permits an http:// URL. Answers stay encrypted to the
	// attested guest, but the bearer token travels in the clear.
	InsecurePlainHTTP bool
	// KeyAlgorithm of the guest's key pairs (guest-protocol 3.2); empty: the usual.
	KeyAlgorithm string
	// NamedOnly is of a standby that is asked only by the URIs that name it.
	NamedOnly bool
}

// Leases says when the broker is asked again for what a pod has, and what happens
// if it says no (package lease).
type Leases struct {
	Interval time.Duration // vouchsafe.lease_interval; 0: never
	Grace    time.Duration // vouchsafe.lease_grace; 0: a silent broker ends nothing
	OnEnd    string        // vouchsafe.on_lease_end
}

// EventLog configures the log of runtime events (guest-protocol 3.2, 6).
type EventLog struct {
	Enabled bool
	// PCR that events go to; 0 for the platform's usual one.
	PCR int
}

// RootCAs returns the pool of b.RootCertificates, or nil for the system's.
func (b Broker) RootCAs() (*x509.CertPool, error) {
	if len(b.RootCertificates) == 0 {
		return nil, nil
	}
	return appendPEM(x509.NewCertPool(), b.RootCertificates)
}

func appendPEM(pool *x509.CertPool, pem []byte) (*x509.CertPool, error) {
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate found in the PEM text")
	}
	return pool, nil
}

// Load parses and joins the sources. It believes init-data as it stands: call
// [CheckBinding] on the result before acting on it.
func Load(src Sources) (*Settings, error) {
	cmd, err := parseCommandLine(src)
	if err != nil {
		return nil, err
	}
	s := &Settings{Agent: cmd.agent, Warnings: cmd.warnings}
	s.Agent.InsecureNoPolicy = cmd.insecureNoPolicy
	var docs documents
	if len(src.InitData) > 0 {
		if s.InitData, err = readInitData(src.InitData); err != nil {
			return nil, fmt.Errorf("init-data: %w", err)
		}
		if docs, err = parseDocuments(s.InitData.Data()); err != nil {
			return nil, fmt.Errorf("init-data: %w", err)
		}
		s.Warnings = append(s.Warnings, docs.warnings...)
	}
	if err := s.joinPolicy(docs); err != nil {
		return nil, fmt.Errorf("init-data: %w", err)
	}
	if err := s.joinPolicyFile(src, cmd.policyFile); err != nil {
		return nil, fmt.Errorf("policy file %.200q: %w", cmd.policyFile, err)
	}
	if docs.cdh != nil && docs.cdh.Vouchsafe.ImageDisk != "" {
		s.Agent.ImageDisk = docs.cdh.Vouchsafe.ImageDisk
	}
	if d := s.Agent.ImageDisk; d != "" && (!filepath.IsAbs(d) || filepath.Clean(d) != d) {
		return nil, fmt.Errorf("image_disk %.80q is no clean absolute path", d)
	}
	if s.Broker, err = joinBroker(cmd, docs); err != nil {
		return nil, err
	}
	if s.Standby, err = joinStandby(s.Broker, docs); err != nil {
		return nil, err
	}
	if err = s.joinComponents(cmd, docs); err != nil {
		return nil, err
	}
	if s.Image, err = joinImage(cmd, docs); err != nil {
		return nil, err
	}
	if s.EventLog, err = joinEventLog(docs); err != nil {
		return nil, err
	}
	s.SkipSealedVerification = docs.cdh != nil && docs.cdh.SkipSealedVerification
	return s, nil
}

// joinPolicy reads what init-data says about the agent policy. A document that
// brings one and waives it contradicts itself.
func (s *Settings) joinPolicy(docs documents) error {
	if s.InitData != nil {
		var brought bool
		s.Agent.Policy, brought = s.InitData.Data()[DocumentPolicy]
		if brought && strings.TrimSpace(s.Agent.Policy) == "" {
			return fmt.Errorf("%s is empty", DocumentPolicy)
		}
	}
	if docs.cdh == nil {
		return nil
	}
	if err := s.joinListen(docs.cdh.Vouchsafe.ListenTLS); err != nil {
		return err
	}
	waived := docs.cdh.Vouchsafe
	switch {
	case waived.InsecureNoAgentPolicy && s.Agent.Policy != "":
		return fmt.Errorf("there is a %s, and insecure_no_agent_policy says that there is none", DocumentPolicy)
	case waived.InsecureLearnPolicy && s.Agent.Policy == "":
		return fmt.Errorf("insecure_learn_agent_policy needs a %s", DocumentPolicy)
	}
	s.Agent.InsecureNoPolicy = s.Agent.InsecureNoPolicy || waived.InsecureNoAgentPolicy
	s.Agent.InsecureLearnPolicy = waived.InsecureLearnPolicy
	return nil
}

// joinPolicyFile takes the policy of the image where init-data brings none. A
// waiver does not lift it: it has no effect beside a policy.
func (s *Settings) joinPolicyFile(src Sources, path string) error {
	if path == "" || s.Agent.Policy != "" {
		return nil
	}
	raw, err := src.image(path)
	if err != nil {
		return err
	}
	if s.Agent.Policy = string(raw); strings.TrimSpace(s.Agent.Policy) == "" {
		return errors.New("the file is empty")
	}
	return nil
}

// joinListen reads the table of the listener, which is whole or absent.
func (s *Settings) joinListen(t *listenTLSTable) error {
	if t == nil {
		return nil
	}
	if t.Certificate == "" || t.Key == "" || t.ClientCA == "" {
		return errors.New("vouchsafe.listen_tls needs certificate, key and client_ca")
	}
	s.Agent.ListenTLS = ListenTLS{Certificate: []byte(t.Certificate), Key: secret.New([]byte(t.Key)), ClientCA: []byte(t.ClientCA)}
	return nil
}

// readInitData accepts both forms in which init-data travels.
func readInitData(raw []byte) (*initdata.Document, error) {
	if bytes.HasPrefix(raw, []byte(deviceMagic)) {
		text, err := initdata.ReadDevice(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		raw = text
	}
	return initdata.Parse(raw)
}

// deviceMagic starts the block-device form (guest-protocol 5.2). It cannot
// start a valid document: a bare word needs an equals sign in TOML, and
// "initdata" is no key of the format.
const deviceMagic = "initdata"
