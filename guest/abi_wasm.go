//go:build wasm

package guest

import "unsafe"

// The waPC protocol. The host copies what it is given before it returns.

//go:wasmimport wapc __guest_request
func guestRequest(operation, payload unsafe.Pointer)

//go:wasmimport wapc __guest_response
func guestResponse(p unsafe.Pointer, n uint32)

//go:wasmimport wapc __guest_error
func guestError(p unsafe.Pointer, n uint32)

//go:wasmimport wapc __host_call
func hostCallRaw(binding unsafe.Pointer, bindingLen uint32, namespace unsafe.Pointer, namespaceLen uint32, operation unsafe.Pointer, operationLen uint32, payload unsafe.Pointer, payloadLen uint32) uint32

//go:wasmimport wapc __host_response_len
func hostResponseLen() uint32

//go:wasmimport wapc __host_response
func hostResponse(p unsafe.Pointer)

//go:wasmimport wapc __host_error_len
func hostErrorLen() uint32

//go:wasmimport wapc __host_error
func hostError(p unsafe.Pointer)

//go:wasmexport __guest_call
func guestCall(operationLen, payloadLen uint32) uint32 {
	operation, payload := make([]byte, operationLen), make([]byte, payloadLen)
	guestRequest(at(operation), at(payload))
	reply, err := run(string(operation), payload, hostCall)
	if err != nil {
		text := []byte(err.Error())
		guestError(at(text), uint32(len(text)))
		return 0
	}
	guestResponse(at(reply), uint32(len(reply)))
	return 1
}

func hostCall(operation string, request []byte) ([]byte, error) {
	const binding, namespace = "wapc", "nola"
	ok := hostCallRaw(atText(binding), uint32(len(binding)), atText(namespace), uint32(len(namespace)),
		atText(operation), uint32(len(operation)), at(request), uint32(len(request)))
	if ok == 0 {
		text := make([]byte, hostErrorLen())
		hostError(at(text))
		return nil, Error(text)
	}
	reply := make([]byte, hostResponseLen())
	hostResponse(at(reply))
	return reply, nil
}

func at(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func atText(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }
