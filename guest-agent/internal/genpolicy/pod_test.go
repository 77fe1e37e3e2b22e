package genpolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

func podOf(spec string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1, namespace: ns1}\nspec:\n  containers:\n  - name: app\n    image: registry.example/app:1\n" + spec
}

// What is not understood, or cannot be bound, is an error and no policy.
func TestRefusedPods(t *testing.T) {
	for name, yaml := range map[string]string{
		"no pod":                     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
		"empty":                      "",
		"no YAML":                    "\tx: [",
		"two pods":                   podYAML + "\n---\n" + podYAML,
		"no container":               "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n",
		"no name":                    "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: registry.example/app:1}]}\n",
		"no template":                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 1}\n",
		"a field of the pod":         podOf("  os: {name: linux}\n"),
		"ephemeral containers":       podOf("  ephemeralContainers: [{name: e, image: registry.example/app:1}]\n"),
		"a list in a list":           "kind: List\nitems: [{kind: List, items: []}]\n",
		"a field of a container":     podOf("    envFiles: []\n"),
		"variables of no file":       podOf("    envFrom: [{configMapRef: {name: x}}]\n"),
		"variables of nothing":       podOf("    envFrom: [{prefix: X}]\n"),
		"variables of two":           withSettings("    envFrom: [{configMapRef: {name: settings}, secretRef: {name: login}}]\n"),
		"a key that is not there":    withSettings("    env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: none}}}]\n"),
		"a secret in an argument":    withSettings("    envFrom: [{secretRef: {name: login}}]\n    args: [$(password)]\n"),
		"settings twice":             withSettings("    envFrom: [{configMapRef: {name: settings}}]\n") + settings,
		"settings that are no texts": podOf("") + "---\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: 1}\n",
		"a secret that is no base64": podOf("") + "---\nkind: Secret\nmetadata: {name: x}\ndata: {a: \"!\"}\n",
		"no name of a variable":      withSettings("    envFrom: [{prefix: \"A=\", configMapRef: {name: settings}}]\n"),
		"a field of a volume":        podOf("  volumes: [{name: v, nfs: {server: x, path: /}}]\n"),
		"a volume of no kind":        podOf("    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v}]\n"),
		"a volume that is not there": podOf("    volumeMounts: [{name: v, mountPath: /v}]\n"),
		"a volume's name":            podOf("    volumeMounts: [{name: \"v.*\", mountPath: /v}]\n  volumes: [{name: \"v.*\", emptyDir: {}}]\n"),
		"an unknown medium":          podOf("    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v, emptyDir: {medium: Tape}}]\n"),
		"part of huge pages":         podOf("    volumeMounts: [{name: v, mountPath: /v, subPath: x}]\n  volumes: [{name: v, emptyDir: {medium: HugePages}}]\n"),
		"a part outside":             podOf("    volumeMounts: [{name: v, mountPath: /v, subPath: x/../../y}]\n  volumes: [{name: v, emptyDir: {}}]\n"),
		"a part from the root":       podOf("    volumeMounts: [{name: v, mountPath: /v, subPath: /x}]\n  volumes: [{name: v, emptyDir: {}}]\n"),
		"two parts":                  podOf("    volumeMounts: [{name: v, mountPath: /v, subPath: x, subPathExpr: x}]\n  volumes: [{name: v, emptyDir: {}}]\n"),
		"a part of nobody knows":     podOf("    volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(X)}]\n  volumes: [{name: v, emptyDir: {}}]\n"),
		"a part that the cluster knows": podOf("    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n" +
			"    volumeMounts: [{name: v, mountPath: /v, subPathExpr: x-$(IP)}]\n  volumes: [{name: v, emptyDir: {}}]\n"),
		"devices":                      podOf("    volumeDevices: [{name: v, devicePath: /dev/x}]\n"),
		"privileged":                   podOf("    securityContext: {privileged: true}\n"),
		"all capabilities":             podOf("    securityContext: {capabilities: {add: [ALL]}}\n"),
		"host network":                 podOf("  hostNetwork: true\n"),
		"a user's name":                "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: registry.example/blind:1}]}\n",
		"an unknown image":             "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: registry.example/none:1}]}\n",
		"the same name twice":          podOf("  - name: app\n    image: registry.example/app:1\n"),
		"an argument of the cluster's": podOf("    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n    args: [\"--ip=$(IP)\"]\n"),
	} {
		if text, _, err := Generate(t.Context(), []byte(yaml), registries(), Options{}); err == nil {
			t.Errorf("%s: taken:\n%s", name, text)
		}
	}
}

// The pod of any object is the same pod, but for its name.
func TestTemplates(t *testing.T) {
	const spec = `{containers: [{name: app, image: registry.example/app:1}]}`
	for kind, yaml := range map[string]string{
		"Deployment": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: " + spec + "}}\n",
		"CronJob":    "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: web}\nspec: {jobTemplate: {spec: {template: {spec: " + spec + "}}}}\n",
		"Pod":        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: " + spec + "\n",
		"List": "apiVersion: v1\nkind: List\nitems:\n- {kind: Service, metadata: {name: s}}\n" +
			"- {kind: StatefulSet, metadata: {name: web}, spec: {template: {spec: " + spec + "}}}\n",
	} {
		e := engine(t, generate(t, yaml, Options{}))
		for host, want := range map[string]bool{"web": true, "web-7d4b9-x2x": kind != "Pod", "webx": false, "xweb": false} {
			if err := judge(t, e, &agent.CreateSandboxRequest{Hostname: host}); (err == nil) != want {
				t.Errorf("%s: host name %s: %v", kind, host, err)
			}
		}
	}
}

// Of a pod and an image the container's process is what Kubernetes makes of them.
func TestContainers(t *testing.T) {
	find := func(spec string) *containerData {
		p, err := parsePod([]byte(podOf(spec)), "")
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.container(t.Context(), p.Containers[0], registries()["registry.example/app:1"], Options{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for spec, want := range map[string]string{
		"":                                   "[/bin/app serve]",
		"    args: [a]\n":                    "[/bin/app a]",
		"    command: [/x]\n":                "[/x]",
		"    command: [/x]\n    args: [a]\n": "[/x a]",
		"    env: [{name: A, value: \"1\"}, {name: B, value: \"$(A)2\"}]\n    args: [\"$(B)\", \"$(MODE)\", \"$$(A)\"]\n": "[/bin/app 12 $(MODE) $(A)]",
	} {
		if got := fmt.Sprint(find(spec).Args); got != want {
			t.Errorf("%q: %s, want %s", spec, got, want)
		}
	}
	c := find("    env: [{name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}, {name: S, valueFrom: {secretKeyRef: {name: x, key: y}}}]\n")
	if !slices.Contains(c.Env, "NS=ns1") || !slices.Equal(c.EnvAny, []string{"S"}) || c.UID != 1000 || !slices.Equal(c.GIDs, []int64{0, 1000}) {
		t.Errorf("%+v", c)
	}
	if c = find("    securityContext: {runAsUser: 0, runAsGroup: 7}\n"); c.UID != 0 || !slices.Equal(c.GIDs, []int64{7}) {
		t.Errorf("%+v", c)
	}
}

// What an agent in learn mode logs becomes part of the policy, where that is small.
func TestLearn(t *testing.T) {
	const one = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod1}\nspec: {automountServiceAccountToken: false, containers: [{name: side, image: registry.example/side:1}]}\n"
	var log bytes.Buffer
	log.WriteString("[    0.1] a line of the kernel's\n")
	e, err := policy.New(t.Context(), generate(t, one, Options{}), policy.Config{
		UnsafeLearn: true, Logger: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	create := sideRequest()
	create.OCI.Process.Env = append(create.OCI.Process.Env, "INJECTED=1")
	exec := &agent.ExecProcessRequest{ContainerId: sideID, Process: &agent.Process{User: &agent.User{}, Args: []string{"/bin/debug"}, Cwd: "/", Env: []string{"INJECTED=1"}}}
	swap := &agent.AddSwapPathRequest{Path: "/dev/vdb"}
	for _, m := range []proto.Message{create, exec, swap} {
		if err := judge(t, e, m); err != nil {
			t.Fatal(err)
		}
	}
	refusals, err := ReadLog(strings.NewReader(log.String()))
	if err != nil || len(refusals) != 3 {
		t.Fatalf("%d refusals, %v, in %s", len(refusals), err, &log)
	}
	text, left, err := Generate(t.Context(), []byte(one), registries(), Options{Learned: refusals})
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Request != "AddSwapPathRequest" {
		t.Errorf("left %+v", left)
	}
	e = engine(t, text)
	for _, m := range []proto.Message{create, exec} {
		if err := judge(t, e, m); err != nil {
			t.Errorf("%s was not learned: %s", m.ProtoReflect().Descriptor().Name(), why(err))
		}
	}
	if judge(t, e, swap) == nil {
		t.Error("swap was learned")
	}
}

func FuzzParsePod(f *testing.F) {
	f.Add([]byte(podYAML))
	f.Add([]byte("kind: Pod\nspec: {}\n---\nkind: Deployment\nspec: {template: {spec: null}}"))
	f.Add([]byte("kind: List\nitems: [{kind: StatefulSet, spec: {template: {spec: {}}, volumeClaimTemplates: [{metadata: {name: d}}]}}, null, {kind: PodList, items: []}]"))
	f.Add([]byte(withSettings("    envFrom: [{prefix: X_, configMapRef: {name: settings}}]\n")))
	f.Add([]byte(partsYAML))
	f.Add(bytes.Repeat([]byte("[{"), 255))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePod(text, "")
		if err == nil && p == nil {
			t.Fatal("neither a pod nor an error")
		}
		if err != nil || len(p.Containers) == 0 {
			return
		}
		c, err := p.container(t.Context(), p.Containers[0], registries()["registry.example/side:1"], Options{})
		if err == nil {
			for _, m := range c.Mounts {
				if strings.HasPrefix(m.Path, "/") || slices.Contains(strings.Split(m.Path, "/"), "..") {
					t.Fatalf("a part outside of its volume: %q", m.Path)
				}
			}
		}
	})
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(`{"msg":"` + policy.LearnMessage + `","request":"ExecProcessRequest","input":{"process":{"Args":["x"]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		refusals, err := ReadLog(bytes.NewReader(text))
		if err != nil {
			return
		}
		d := &data{Containers: []*containerData{{}}}
		if left := d.learn(refusals); len(left) > len(refusals) {
			t.Fatal("more was left than there was")
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzGenerated asks a generated policy for what a hostile host may write: it
// never fails to judge, and what it allows is the pod's own process.
func FuzzGenerated(f *testing.F) {
	text := generate(f, podYAML, Options{})
	e := engine(f, text)
	for _, m := range []*agent.CreateContainerRequest{appRequest(), sideRequest(), pauseRequest()} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m agent.CreateContainerRequest
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		done, err := e.Judge(t.Context(), &m)
		if err != nil {
			return
		}
		done(false)
		args := fmt.Sprint(m.OCI.Process.Args)
		if m.Storages[0].Source != "pause" && args != "[/bin/app serve --mode=pod $HOME]" && args != "[/side]" {
			t.Fatalf("allowed %v", &m)
		}
	})
}
