package binapi

import "go.fd.io/govpp/binapi/vlib"

// CLI runs one command of VPP's command line. It is for what the messages do
// not tell. VPP reports a failed command in the text.
func CLI(command string, out *string) *Call {
	req := &vlib.CliInband{Cmd: command}
	return newCall(command, req, func(r *vlib.CliInbandReply) error {
		*out = r.Reply
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
