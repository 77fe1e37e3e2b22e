package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/genpolicy"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

// generator is what the command line of genpolicy says.
type generator struct {
	out, learn   string
	denyLogs     bool
	platform     string
	ca, authFile string
	plainHTTP    []string
	layouts      map[string]string
	keys         []string
	options      genpolicy.Options
}

// genpolicyCommand is for the pod's owner, on the owner's machine.
func genpolicyCommand(io stdio) *cobra.Command {
	var g generator
	cmd := &cobra.Command{
		Use:   "genpolicy POD.yaml",
		Short: "Write an agent policy for a pod",
		Long: "Reads a pod, or an object with a pod template (- is the standard input), looks its images up in\n" +
			"their registries and writes the policy that lets a host run just this pod. It goes into\n" +
			"init-data as policy.rego.\n\n" +
			"What the host could read or change is refused, until a flag that begins with --insecure- names it.",
		Example: "  guest-agent genpolicy pod.yaml -o policy.rego\n" +
			"  guest-agent genpolicy pod.yaml --learn agent.log -o policy.rego\n" +
			"  guest-agent genpolicy db.yaml --pod StatefulSet/db --encrypted-volume data=kbs:///default/volume/data",
		Args: oneArg("the file of a pod"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.run(cmd.Context(), args[0], cmd.InOrStdin(), io)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&g.out, "output", "o", "", "`FILE` for the policy (default: the standard output)")
	f.StringVar(&g.learn, "learn", "", "`FILE` with the log of an agent that only learned from the policy (insecure_learn_agent_policy); what it would have refused is allowed where a small rule does that, and listed otherwise")
	f.StringVar(&g.options.Pod, "pod", "", "`NAME` or KIND/NAME of the object that is meant, where the file has several with a pod")
	f.BoolVar(&g.denyLogs, "deny-logs", false, "the host may not read what the containers write")
	f.StringArrayVar(&g.keys, "encrypted-volume", nil, "`NAME=KEY[,format]`: the volume NAME lies encrypted on a disk of the host's, and the guest opens it with this key alone, a kbs:// URI or a sealed secret; with format a disk that is empty gets a new volume, which also a host can bring about (repeatable)")
	f.StringSliceVar(&g.options.InsecureHostVolumes, "insecure-host-volume", nil, "`NAME` of a persistent volume, hostPath or the like: the host can read, choose and change what is in it")
	f.BoolVar(&g.options.InsecureHostShare, "insecure-host-share", false, "the host may share directories (virtio-fs): it can change config maps, secrets and host volumes at any time, and an emptyDir must be in memory or encrypted")
	f.StringSliceVar(&g.options.InsecureHostDevices, "insecure-host-device", nil, "`NAME` of a volume in block mode, which the host can read and change, or of a resource of device plugins, of which nobody knows what it is")
	f.StringSliceVar(&g.options.InsecurePrivileged, "insecure-privileged", nil, "`NAME` of a container that may do anything to the guest, and so to the other containers")
	f.StringVar(&g.platform, "platform", "", "`OS/ARCH[/VARIANT]` of the guest (default: that of this machine)")
	f.StringToStringVar(&g.layouts, "image", nil, "`NAME=oci:DIR[:TAG]`: take the image that the pod calls NAME from an OCI layout, not from its registry (repeatable)")
	f.Lookup("image").DefValue = ""
	f.StringVar(&g.ca, "registry-ca", "", "PEM `FILE` of the CA that signed the registry's certificate")
	f.StringVar(&g.authFile, "authfile", "", "docker auth.json `FILE` with the registries' credentials (default: none is used)")
	f.StringSliceVar(&g.plainHTTP, "insecure-plain-http", nil, "speak plain HTTP to these registry `HOSTS` (host:port); anyone on the way can read and change what passes")
	return cmd
}

// maxInput bounds the files that genpolicy reads, in bytes.
const maxInput = 64 << 20

func (g generator) run(ctx context.Context, pod string, stdin io.Reader, io stdio) error {
	text, err := readInput(pod, stdin)
	if err != nil {
		return err
	}
	images, err := g.images()
	if err != nil {
		return err
	}
	o := g.options
	o.DenyLogs = g.denyLogs
	if o.Keys, err = g.volumeKeys(); err != nil {
		return err
	}
	if g.learn != "" {
		log, err := os.Open(g.learn)
		if err != nil {
			return err
		}
		o.Learned, err = genpolicy.ReadLog(log)
		if err = errors.Join(err, log.Close()); err != nil {
			return err
		}
	}
	policy, left, err := genpolicy.Generate(ctx, text, images, o)
	if err != nil {
		return fmt.Errorf("%s: %w", pod, err)
	}
	for _, r := range left {
		_, _ = fmt.Fprintf(io.err, "not learned: %s: %s\n", r.Request, r.Why)
	}
	if g.out == "" {
		_, err = fmt.Fprint(io.out, policy)
		return err
	}
	return os.WriteFile(g.out, []byte(policy), 0o644) //nolint:gosec // a policy is no secret: it travels past the host
}

// volumeKeys reads --encrypted-volume.
func (g generator) volumeKeys() (map[string]genpolicy.Key, error) {
	keys := map[string]genpolicy.Key{}
	for _, pair := range g.keys {
		name, text, _ := strings.Cut(pair, "=")
		k, err := genpolicy.ParseKey(text)
		if err == nil && keys[name] != (genpolicy.Key{}) {
			err = errors.New("it has two keys")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: --encrypted-volume %s: %w", errUsage, name, err)
		}
		keys[name] = k
	}
	return keys, nil
}

func readInput(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		stdin = f
	}
	raw, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
	if err == nil && len(raw) > maxInput {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxInput)
	}
	return raw, err
}

func (g generator) images() (genpolicy.Images, error) {
	platform := registry.Native()
	if g.platform != "" {
		parts := append(strings.Split(g.platform, "/"), "")
		if len(parts) < 3 || len(parts) > 4 || parts[0] == "" || parts[1] == "" {
			return nil, fmt.Errorf("%w: --platform %q is not of the form OS/ARCH[/VARIANT]", errUsage, g.platform)
		}
		platform = registry.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	cfg := registry.Config{
		InsecureHTTPHosts: g.plainHTTP, UserAgent: "vouchsafe-genpolicy/" + version.Here().Short(),
		ProxyFromEnvironment: true, Helper: registry.ExecHelper,
	}
	if g.ca != "" {
		pem, err := os.ReadFile(g.ca)
		if err != nil {
			return nil, err
		}
		if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
			cfg.RootCAs = x509.NewCertPool()
		}
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", g.ca)
		}
	}
	if g.authFile != "" {
		raw, err := os.ReadFile(g.authFile)
		if err != nil {
			return nil, err
		}
		cfg.Auth = secret.New(raw)
	}
	client, err := registry.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	return genpolicy.Registries{Client: client, Platform: platform, Layouts: g.layouts}, nil
}
