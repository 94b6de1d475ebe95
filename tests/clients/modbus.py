"""modbus.py tcp:PORT|rtu:DEVICE: every function of `[modbus]` as pymodbus asks it. The server has four outputs that are off, at
coils 0 to 3 and registers 10 to 13, and the values 12.5 and unknown at registers 200 to 203. Says what is wrong, and fails."""

import sys

from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import ModbusIOException

kind, where = sys.argv[1].split(":", 1)
if kind == "tcp":
    client = ModbusTcpClient("127.0.0.1", port=int(where), retries=0)
else:
    # A pty has no parity, and pyserial insists on what it asks for.
    client = ModbusSerialClient(where, baudrate=19200, parity="N", stopbits=2, retries=0, timeout=5)
assert client.connect(), "no connection"


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got} instead of {wanted}")


def good(what, answer):
    if answer.isError():
        sys.exit(f"{what}: {answer}")
    return answer


def coils():
    return good("1", client.read_coils(0, count=4)).bits[:4]


def registers():
    return good("3", client.read_holding_registers(10, count=4)).registers


same("1", coils(), [False] * 4)
good("5", client.write_coil(0, True))
same("5", coils(), [True, False, False, False])
good("15", client.write_coils(0, [False, True, True, False]))
same("15", coils(), [False, True, True, False])
same("3", registers(), [0, 1, 1, 0])
same("4", good("4", client.read_input_registers(10, count=4)).registers, [0, 1, 1, 0])
good("6", client.write_register(13, 1))
same("6", registers(), [0, 1, 1, 1])
good("16", client.write_registers(10, [1, 0, 0, 1]))
same("16", coils(), [True, False, False, True])
good("22", client.mask_write_register(address=11, and_mask=0, or_mask=1))
same("22", registers(), [1, 1, 0, 1])
answer = good("23", client.readwrite_registers(read_address=10, read_count=4, write_address=12, values=[1, 0]))
same("23", answer.registers, [1, 1, 1, 0])
same("values", good("4", client.read_input_registers(200, count=4)).registers, [0, 12500, 0x8000, 0])
information = good("43", client.read_device_information(read_code=2)).information
same("43", (information[0], information[5]), (b"multusd", b"pump-7"))

for what, answer, code in [
    ("a coil there is not", client.read_coils(0, count=5), 2),
    ("a discrete input there is not", client.read_discrete_inputs(0, count=1), 2),
    ("a register there is not", client.read_holding_registers(9, count=2), 2),
    ("a value to be written", client.write_register(200, 1), 2),
    ("a level there is not", client.write_register(10, 2), 3),
    ("one level of two that is none", client.write_registers(10, [0, 7]), 3),
    ("one coil of two there is not", client.write_coils(3, [True, True]), 2),
]:
    same(what, answer.isError() and answer.exception_code, code)
same("nothing was written by what was refused", registers(), [1, 1, 1, 0])

if kind == "tcp":
    same("another unit", client.read_coils(0, count=1, device_id=9).exception_code, 11)
    same("the machine itself", client.read_coils(0, count=1, device_id=255).isError(), False)
else:
    client.comm_params.timeout_connect = 0.3
    try:
        client.read_coils(0, count=1, device_id=9)
        sys.exit("another unit answered")
    except ModbusIOException:
        pass
good("15", client.write_coils(0, [False] * 4))
print("every function answered")
