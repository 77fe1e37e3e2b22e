// Package genpolicy writes an agent policy for a pod: which containers the host
// may ask the guest to run, from which images, with which arguments, mounts and
// rights, and which commands it may run in them.
//
// The policy has two parts. The first is the pod, as data; a person can read it
// and change it. The second are rules that are the same for every pod. They bind
// what matters to the owner and leave alone what runtimes choose and change with
// their versions: limits, cgroups, labels, the order of mounts and variables.
//
// What a pod's file cannot say, or what this package does not know, is an error,
// never a hole: a field that nobody here has read may be one that matters.
package genpolicy

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// The rules for every pod, and further ones for pods that have what they are about:
// each costs the evaluation of one more rule.
var (
	//go:embed rules.rego
	rules string
	//go:embed parts.rego
	partRules string
	//go:embed devicekeys.rego
	deviceKeyRules string
)

// Image is what a registry says about an image.
type Image struct {
	References []string // spellings under which a runtime may ask for it
	Digests    []string // of the platform's manifest, and of the index if there is one
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	User       string
	// Files reads files of the image: paths without a leading slash. What is not
	// there is not in the result.
	Files func(ctx context.Context, names ...string) (map[string][]byte, error)
}

// Images finds images.
type Images interface {
	Image(ctx context.Context, ref string) (Image, error)
}

// Options of a policy.
type Options struct {
	// Pod says which pod of a file with several is meant: NAME or KIND/NAME.
	Pod      string
	DenyLogs bool // the host may not read what containers write
	// Learned is what a policy in learn mode would have refused; see [ReadLog].
	Learned []Refusal
	// Keys are those of volumes that lie encrypted on disks of the host's, by the
	// names of the volumes.
	Keys map[string]Key
	// InsecureHostVolumes names volumes whose content the host may read, choose
	// and change.
	InsecureHostVolumes []string
	// InsecureHostShare lets the host share directories (virtio-fs): it may read
	// and change what lies in config maps, secrets and host volumes at any time.
	InsecureHostShare bool
	// InsecureHostDevices names volumes that are given as devices, and resources of
	// device plugins.
	InsecureHostDevices []string
	// InsecurePrivileged names containers that may do anything to the guest.
	InsecurePrivileged []string
}

// data is the pod as the rules read it.
type data struct {
	Hostname        string            `json:"hostname"` // regular expression
	SharePID        bool              `json:"share_pid"`
	Logs            bool              `json:"logs"`
	ServiceVariable string            `json:"service_variable"` // regular expression
	HostShare       bool              `json:"host_share,omitempty"`
	Sysctls         map[string]string `json:"sysctls"`
	Containers      []*containerData  `json:"containers"`
}

// Generate returns the policy for the one pod in a YAML file. What of the learned
// requests could not be turned into data is left, and returned.
func Generate(ctx context.Context, yaml []byte, images Images, o Options) (text string, left []Refusal, err error) {
	p, err := parsePod(yaml, o.Pod)
	if err != nil {
		return "", nil, err
	}
	d, err := p.data()
	if err != nil {
		return "", nil, err
	}
	if err := p.checkOptions(o); err != nil {
		return "", nil, err
	}
	d.Logs, d.HostShare = !o.DenyLogs, o.InsecureHostShare
	digests := map[string][]string{}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		image, err := images.Image(ctx, c.Image)
		if err != nil {
			return "", nil, fmt.Errorf("container %s: image: %w", c.Name, err)
		}
		item, err := p.container(ctx, c, image, o)
		if err != nil {
			return "", nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
		d.Containers = append(d.Containers, item)
		for _, ref := range image.References {
			digests[ref] = image.Digests
		}
	}
	left = d.learn(o.Learned)
	if text, err = render(d, digests); err != nil {
		return "", nil, err
	}
	if err := policy.Check(ctx, text); err != nil {
		return "", nil, fmt.Errorf("the policy that was written is not one: %w", err)
	}
	return text, left, nil
}

// render joins data and rules.
func render(d *data, digests map[string][]string) (string, error) {
	var out strings.Builder
	out.WriteString("# Written by: guest-agent genpolicy\npackage agent_policy\n")
	for _, part := range []struct {
		comment, name string
		value         any
	}{
		{"What may be pulled: digests, by the reference that is asked for.", "image_digests", digests},
		{"The pod.", "pod", d},
	} {
		raw, err := json.MarshalIndent(part.value, "", "\t")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\n# %s\n%s := %s\n", part.comment, part.name, raw)
	}
	out.WriteString("\n" + rules)
	if d.has(func(c *containerData) bool { return slices.ContainsFunc(c.Mounts, func(m mount) bool { return m.Own }) }) {
		out.WriteString(partRules)
	}
	if d.has(func(c *containerData) bool { return len(c.DeviceKeys) > 0 }) {
		out.WriteString(deviceKeyRules)
	}
	return out.String(), nil
}

// has says whether a container is as is asked for.
func (d *data) has(is func(*containerData) bool) bool { return slices.ContainsFunc(d.Containers, is) }

// Variables that Kubernetes adds for the services of a namespace, and those that
// it always adds.
const (
	anyService = `^[A-Z][A-Z0-9_]*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)=[a-z0-9.:/\[\]]*$`
	kubernetes = `^KUBERNETES_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_TCP(_(PROTO|PORT|ADDR))?)?)=[a-z0-9.:/\[\]]*$`
)

// Settings of containerd that give an unprivileged process no more than Kubernetes
// means it to have.
func usualSysctls() map[string]string {
	return map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
}

// data is the pod without its containers.
func (p *pod) data() (*data, error) {
	switch {
	case p.HostNetwork || p.HostPID || p.HostIPC:
		return nil, errors.New("hostNetwork, hostPID and hostIPC have no place in a guest")
	case len(p.EphemeralContainers) > 0:
		return nil, errors.New("ephemeral containers are added to a pod that runs, from images and with commands that its owner did not name beforehand")
	case len(p.Containers) == 0:
		return nil, errors.New("the pod has no container")
	}
	d := &data{SharePID: p.ShareProcessNamespace, ServiceVariable: anyService, Sysctls: usualSysctls(), Containers: []*containerData{}}
	if p.EnableServiceLinks != nil && !*p.EnableServiceLinks {
		d.ServiceVariable = kubernetes
	}
	for _, s := range p.podSpec.SecurityContext.Sysctls {
		d.Sysctls[s.Name] = s.Value
	}
	switch name := regexp.QuoteMeta(p.Name); {
	case p.Hostname != "":
		d.Hostname = "^" + regexp.QuoteMeta(p.Hostname) + "$"
	case name == "":
		return nil, errors.New("the pod has no name")
	case p.generated:
		d.Hostname = "^" + name + "(-[a-z0-9-]+)?$"
	default:
		d.Hostname = "^" + name + "$"
	}
	seen := map[string]bool{}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		if c.Name == "" || c.Image == "" || seen[c.Name] {
			return nil, fmt.Errorf("container %q needs an image and a name of its own", c.Name)
		}
		seen[c.Name] = true
	}
	return d, nil
}
