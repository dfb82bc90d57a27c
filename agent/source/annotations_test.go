package source

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidewinder-net/sidewinder/agent/podspec"
)

// What a pod asks of its interfaces is handed on as it was written, right or
// wrong; the rest of its annotations is not.
func TestPodAnnotations(t *testing.T) {
	asked := map[string]string{podspec.AnnotationMemifPorts: "wrong", podspec.AnnotationInterfaces: `{"eth0": {"rx": 1}}`}
	annotated := pod("a", "10.1.0.2", func(p *corev1.Pod) {
		p.Annotations = map[string]string{"example.org/other": "x"}
		for k, v := range asked {
			p.Annotations[k] = v
		}
	})
	objs, ok, problems := shuffled(t, annotated, pod("b", "10.1.0.3"))
	require.True(t, ok)
	require.Empty(t, problems)
	require.Equal(t, asked, objs.Pods["default/a"].Annotations)
	require.Nil(t, objs.Pods["default/b"].Annotations)
}
