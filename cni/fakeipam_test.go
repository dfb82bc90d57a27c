package main_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// runFakeIPAM answers as calico-ipam does: /32 and /128, no gateway, no routes;
// an ADD never complains that the container has an address already; it is from
// before CNI 1.1, so it knows neither STATUS nor GC.
func runFakeIPAM() int {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		IPAM       struct {
			Store string `json:"store"`
			// Fail names the command that is to fail.
			Fail string `json:"fail"`
		} `json:"ipam"`
	}
	refuse := func(code int, msg string) int {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": conf.CNIVersion, "code": code, "msg": msg})
		return 1
	}
	if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
		return refuse(6, err.Error())
	}
	command := os.Getenv("CNI_COMMAND")
	if command == conf.IPAM.Fail {
		return refuse(11, "the fake was told to fail")
	}
	file := filepath.Join(conf.IPAM.Store, conf.Name+"."+os.Getenv("CNI_CONTAINERID"))
	switch command {
	case "ADD":
		if err := os.MkdirAll(conf.IPAM.Store, 0o755); err != nil {
			return refuse(5, err.Error())
		}
		if err := os.WriteFile(file, []byte(os.Getenv("CNI_ARGS")), 0o644); err != nil {
			return refuse(5, err.Error())
		}
		h := fnv.New32()
		h.Write([]byte(os.Getenv("CNI_CONTAINERID")))
		x := h.Sum32()
		ips := []map[string]any{
			{"version": "4", "address": fmt.Sprintf("10.244.%d.%d/32", x>>8&0xff, x&0xff)},
			{"version": "6", "address": fmt.Sprintf("fd44::%x:%x/128", x>>16, x&0xffff)},
		}
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": conf.CNIVersion, "ips": ips})
	case "DEL":
		_ = os.Remove(file)
	case "CHECK":
		if _, err := os.Stat(file); err != nil {
			return refuse(100, err.Error())
		}
	default:
		return refuse(4, "unknown CNI_COMMAND: "+command)
	}
	return 0
}
