package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/guestnet"
)

// CommandLine is the measured kernel command line of the stage's good guest.
const CommandLine = "agent.log=debug agent.guest_components_rest_api=all"

// Vendor makes a simulated processor vendor and returns its directory. Its
// root is in root.pem there.
func (w *World) Vendor(ctx context.Context, label string) (string, error) {
	dir := w.Path("vendor-" + label)
	_, err := w.Run(ctx, "measure", "sim", "vendor", dir)
	return dir, err
}

// RegisterMeasurement predicts the launch measurement of a guest with the given
// command line and makes it the reference value. It returns the measurement.
func (w *World) RegisterMeasurement(ctx context.Context, commandLine string) (string, error) {
	out, err := w.Run(ctx, "measure", "predict", "--platform", "snp", "--image", filepath.Join(w.Bin, "guest-agent"), "--cmdline", commandLine, "-o", "hex")
	if err != nil {
		return "", err
	}
	measurement := strings.TrimSpace(out)
	document := fmt.Sprintf("kind: RefValue\nmetadata: {name: snp_launch_measurement}\nspec: {value: [%q]}\n", measurement)
	if err := os.WriteFile(w.Path("refvalue.yaml"), []byte(document), 0o600); err != nil {
		return "", err
	}
	_, err = w.Broker.Ctl(ctx, "apply", "-f", w.Path("refvalue.yaml"))
	return measurement, err
}

// Guest is a running guest: one agent in namespaces of its own.
type Guest struct {
	Name string
	Net  *guestnet.Net
	Dir  string

	world   *World
	process *process
	kata    *Kata
}

// Pod is what a guest is launched for: the agent policy in its init-data allows
// just this.
type Pod struct {
	Image   string   // reference
	Command []string // empty: the image's
	Env     []string // NAME=VALUE, beside the image's
	DataHub string   // what cdh.toml begins with, beside what every guest needs
	Beside  []Beside // further containers
	// Volume is where all containers have one persistent volume, whose key is the
	// broker's VolumeResource; empty for none. NewVolume makes it on an empty disk.
	Volume    string
	NewVolume bool
	Store     bool // the first container brings a disk for images
}

// Beside is a container beside the first one, which is called app: of the same image.
type Beside struct {
	Name    string
	Command []string
	Scratch string // where it has the pod's emptyDir volume; empty for nowhere
}

// Launch plays the hypervisor: it writes the init-data, measures and launches
// the guest on a new simulated chip of the vendor, and starts the agent in its
// own network, mount, process, IPC and UTS namespaces. From inside, only the
// broker and the registry can be reached.
func (w *World) Launch(ctx context.Context, label, vendor, commandLine string, pod Pod) (*Guest, error) {
	dir, err := os.MkdirTemp(w.Dir, "guest-"+label+"-")
	if err != nil {
		return nil, err
	}
	g := &Guest{Name: label, Dir: dir, world: w}
	document, err := w.initData(ctx, dir, pod)
	if err != nil {
		return nil, err
	}
	files := map[string]string{"initdata.toml": document, "cmdline": commandLine}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(g.Dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	agent := filepath.Join(w.Bin, "guest-agent")
	if _, err := w.Run(ctx, "measure", "sim", "guest", "--vendor", vendor, "--out", g.path("device"),
		"--image", agent, "--cmdline", commandLine, "--init-data", g.path("initdata.toml")); err != nil {
		return nil, err
	}
	if g.Net, err = guestnet.New(); err != nil {
		return nil, err
	}
	w.onClose(g.Stop)
	for _, addr := range []string{strings.TrimPrefix(w.Broker.URL, "https://"), w.Registry.Addr} {
		if err := g.Net.Forward(addr); err != nil {
			return nil, err
		}
	}
	return g, g.boot(ctx, agent)
}

func (g *Guest) boot(ctx context.Context, agent string) error {
	socket := g.path("agent.sock")
	// A shell makes the mounts private and replaces itself by the agent, which so
	// is process 1 of its namespaces and the one that signals reach.
	cmd := exec.Command("/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh",
		agent, "serve", "--listen", "unix://"+socket, "--state-dir", g.path("state"),
		"--simulated-snp", g.path("device"), "--init-data", g.path("initdata.toml"),
		"--kernel-cmdline", g.path("cmdline"), "--rest-listen", "127.0.0.1:8006", "--attestation-socket", g.path("aa.sock"), "--data-hub-socket", g.path("cdh.sock"), "--log-level", "debug")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, // no guest outlives its stage
	}
	p, err := start("guest-agent "+g.Name, g.path("agent.log"), cmd, g.Net.Start)
	if err != nil {
		return err
	}
	g.process = p
	return p.until(ctx, "listening", func() bool {
		k, err := dialKata(ctx, socket, "/"+filepath.Base(g.Dir)+"-")
		if err != nil {
			return false
		}
		g.kata = k
		return true
	})
}

func (g *Guest) path(parts ...string) string {
	return filepath.Join(append([]string{g.Dir}, parts...)...)
}

// Kata returns the driver that plays the runtime's part.
func (g *Guest) Kata() *Kata { return g.kata }

// Rootfs returns where a container's root lies, seen from outside the guest's
// mount namespace.
func (g *Guest) Rootfs(id string) string {
	return fmt.Sprintf("/proc/%d/root%s", g.PID(), g.path("state", id, "rootfs"))
}

// Mounts returns the mounts below the agent's state directory, one a line, as
// the guest sees them.
func (g *Guest) Mounts() ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", g.PID()))
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, " "+g.path("state")+"/") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list, nil
}

// Ended waits until the agent has ended by itself, and returns how.
func (g *Guest) Ended(ctx context.Context) error {
	select {
	case <-g.process.done:
		return g.process.err
	case <-ctx.Done():
		return fmt.Errorf("%s still runs: %w", g.process.name, ctx.Err())
	}
}

// Stop ends the agent and its network.
func (g *Guest) Stop() error {
	var errs []error
	if g.kata != nil {
		errs = append(errs, g.kata.close())
		g.kata = nil
	}
	if g.process != nil {
		errs = append(errs, g.process.stop())
	}
	if g.Net != nil {
		errs = append(errs, g.Net.Close())
		g.Net = nil
	}
	return errors.Join(errs...)
}

// agentPolicy writes the pod down as its owner would, and has the policy made.
func (w *World) agentPolicy(ctx context.Context, dir string, pod Pod) (string, error) {
	env := []map[string]string{}
	for _, v := range pod.Env {
		name, value, _ := strings.Cut(v, "=")
		env = append(env, map[string]string{"name": name, "value": value})
	}
	type object = map[string]any
	var containers []object
	for _, c := range append([]Beside{{Name: "app", Command: pod.Command}}, pod.Beside...) {
		containers = append(containers, object{
			"name": c.Name, "image": pod.Image, "command": c.Command, "env": env, "volumeMounts": pod.volumeMounts(c),
			"securityContext": object{"runAsUser": 0, "allowPrivilegeEscalation": false}, // as the stage's runtime asks, of any image
		})
	}
	if pod.Store {
		containers[0]["volumeDevices"] = []object{{"name": "store", "devicePath": trustedStore}}
	}
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": podName},
		"spec": object{"runtimeClassName": "kata", "automountServiceAccountToken": false, "containers": containers, "volumes": pod.volumes()},
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "pod.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil { // JSON is YAML
		return "", err
	}
	return w.Run(ctx, "guest-agent", append([]string{"genpolicy", file, "--registry-ca", w.Path("registry-ca.pem")}, pod.keys()...)...)
}

// initData writes the document that tells a guest where its broker and its
// image policy are, and what the host may ask of it. It is measured: the host
// cannot give another.
func (w *World) initData(ctx context.Context, dir string, pod Pod) (string, error) {
	broker, err := os.ReadFile(w.Broker.CA)
	if err != nil {
		return "", err
	}
	rego, err := w.agentPolicy(ctx, dir, pod)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`version = "0.1.0"
algorithm = "sha256"

[data]
"aa.toml" = '''
[token_configs.kbs]
url = "%[1]s"
cert = """
%[2]s"""
'''
"cdh.toml" = '''
%[6]s
[kbc]
name = "cc_kbc"
url = "%[1]s"
kbs_cert = """
%[2]s"""

[image]
image_security_policy_uri = "kbs:///%[3]s"
extra_root_certificates = ["""
%[4]s"""]
%[7]s'''
"policy.rego" = '''
%[5]s'''
`, w.reached(w.Broker.URL), broker, PolicyResource, w.Registry.CA, rego, pod.DataHub, w.mirror()), nil
}

// mirror tells guests that find the registry elsewhere where it is.
func (w *World) mirror() string {
	at := w.reached(w.Registry.Addr)
	if at == w.Registry.Addr {
		return ""
	}
	return fmt.Sprintf("\n[[image.registry_config.registry]]\nprefix = %q\nlocation = %q\n", w.Registry.Addr, at)
}

// PID is a process in the guest's namespaces, for people who want to look in.
func (g *Guest) PID() int { return g.process.cmd.Process.Pid }
