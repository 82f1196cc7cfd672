"""Names for what partitions say they hold: GPT's type GUIDs and MBR's type bytes.

GUIDs are text in upper case as UEFI 2.10 appendix A writes them; on disk the first three fields are little-endian.
"""

from __future__ import annotations

import os

from ...errors import UsageError

#: GUIDs of types that code here needs by name
UNUSED_GUID = "00000000-0000-0000-0000-000000000000"
LINUX_GUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
BASIC_DATA_GUID = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
SWAP_GUID = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
LVM_GUID = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
RAID_GUID = "A19D880F-05FC-4D3B-A006-743F0F84911E"
EFI_SYSTEM_GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"

#: type GUID → what people call it
GUID_NAMES = {
    UNUSED_GUID: "unused",
    EFI_SYSTEM_GUID: "EFI System",
    "024DEE41-33E7-11D3-9D69-0008C781F39F": "MBR partition scheme",
    "21686148-6449-6E6F-744E-656564454649": "BIOS boot",
    "D3BFE2DE-3DAF-11DF-BA40-E3A556D89593": "Intel Fast Flash",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": "PowerPC PReP boot",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "Microsoft reserved",
    BASIC_DATA_GUID: "Microsoft basic data",
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3": "Microsoft LDM metadata",
    "AF9B60A0-1431-4F62-BC68-3311714A69AD": "Microsoft LDM data",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": "Windows recovery environment",
    "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D": "Microsoft Storage Spaces",
    "37AFFC90-EF7D-4E96-91C3-2D7AE055B174": "IBM General Parallel Fs",
    LINUX_GUID: "Linux filesystem",
    "44479540-F297-41B2-9AF7-D131D5F0458A": "Linux root (x86)",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "Linux root (x86-64)",
    "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3": "Linux root (ARM)",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "Linux root (ARM-64)",
    "72EC70A6-CF74-40E6-BD49-4BDA08E8F224": "Linux root (RISC-V-64)",
    "C31C45E6-3F39-412E-80FB-4809C4980599": "Linux root (PPC64LE)",
    "5EEAD9A9-FE09-4A1E-A1D7-520D00531306": "Linux root (S390X)",
    "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5": "Linux root verity (x86-64)",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "Linux extended boot",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "Linux home",
    "3B8F8425-20E0-4F3B-907F-1A25A76F98E8": "Linux server data",
    "4D21B016-B534-45C2-A9FB-5C16E091FD2D": "Linux variable data",
    "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1": "Linux temporary data",
    "773F91EF-66D4-49B5-BD83-D683BF40AD16": "Linux user's home",
    "8484680C-9521-48C6-9C11-B0720656F69E": "Linux /usr (x86-64)",
    "8DA63339-0007-60C0-C436-083AC8230908": "Linux reserved",
    SWAP_GUID: "Linux swap",
    LVM_GUID: "Linux LVM",
    RAID_GUID: "Linux RAID",
    "7FFEC5C9-2D00-49B7-8941-3EA10A5586B7": "Linux plain dm-crypt",
    "CA7D7CCB-63ED-4C53-861C-1742536059CC": "Linux LUKS",
    "516E7CB4-6ECF-11D6-8FF8-00022D09712B": "FreeBSD data",
    "83BD6B9D-7F41-11DC-BE0B-001560B84F0F": "FreeBSD boot",
    "516E7CB5-6ECF-11D6-8FF8-00022D09712B": "FreeBSD swap",
    "516E7CB6-6ECF-11D6-8FF8-00022D09712B": "FreeBSD UFS",
    "516E7CB8-6ECF-11D6-8FF8-00022D09712B": "FreeBSD Vinum",
    "516E7CBA-6ECF-11D6-8FF8-00022D09712B": "FreeBSD ZFS",
    "824CC7A0-36A8-11E3-890A-952519AD3F61": "OpenBSD data",
    "49F48D32-B10E-11DC-B99B-0019D1879648": "NetBSD swap",
    "49F48D5A-B10E-11DC-B99B-0019D1879648": "NetBSD FFS",
    "48465300-0000-11AA-AA11-00306543ECAC": "Apple HFS/HFS+",
    "7C3457EF-0000-11AA-AA11-00306543ECAC": "Apple APFS",
    "55465300-0000-11AA-AA11-00306543ECAC": "Apple UFS",
    "52414944-0000-11AA-AA11-00306543ECAC": "Apple RAID",
    "426F6F74-0000-11AA-AA11-00306543ECAC": "Apple boot",
    "4C616265-6C00-11AA-AA11-00306543ECAC": "Apple label",
    "53746F72-6167-11AA-AA11-00306543ECAC": "Apple Core storage",
    "6A82CB45-1DD2-11B2-99A6-080020736631": "Solaris boot",
    "6A85CF4D-1DD2-11B2-99A6-080020736631": "Solaris root",
    "6A898CC3-1DD2-11B2-99A6-080020736631": "Solaris /usr & Apple ZFS",
    "6A87C46F-1DD2-11B2-99A6-080020736631": "Solaris swap",
    "75894C1E-3AEB-11D3-B7C1-7B03A0000000": "HP-UX data",
    "FE3A2A5D-4F32-41A7-B725-ACCC3285A309": "ChromeOS kernel",
    "3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC": "ChromeOS root fs",
    "2E0A753D-9E48-43B0-8337-B15192CB1B5E": "ChromeOS reserved",
    "AA31E02A-400F-11DB-9590-000C2911D1B8": "VMware VMFS",
    "9D275380-40AD-11DB-BF97-000C2911D1B8": "VMware Diagnostic",
    "381CFCCC-7288-11E0-92EE-000C2911D0B2": "VMware Virtual SAN",
    "4FBD7E29-9D25-41B8-AFD0-062C0CEFF05D": "Ceph OSD",
    "45B0969E-9B03-4F30-B4C6-B4B80CEFF106": "Ceph Journal",
    "42465331-3BA3-10F1-802A-4861696B7521": "Haiku BFS",
}

#: MBR type byte → what people call it
MBR_NAMES = {
    0x00: "Empty", 0x01: "FAT12", 0x04: "FAT16 <32M", 0x05: "Extended", 0x06: "FAT16", 0x07: "HPFS/NTFS/exFAT",
    0x0B: "W95 FAT32", 0x0C: "W95 FAT32 (LBA)", 0x0E: "W95 FAT16 (LBA)", 0x0F: "W95 Ext'd (LBA)",
    0x11: "Hidden FAT12", 0x12: "Compaq diagnostics", 0x14: "Hidden FAT16 <32M", 0x16: "Hidden FAT16",
    0x17: "Hidden HPFS/NTFS", 0x1B: "Hidden W95 FAT32", 0x1C: "Hidden W95 FAT32 (LBA)",
    0x1E: "Hidden W95 FAT16 (LBA)", 0x27: "Hidden NTFS WinRE", 0x39: "Plan 9", 0x41: "PPC PReP Boot", 0x42: "SFS",
    0x4D: "QNX4.x", 0x63: "GNU HURD or SysV", 0x80: "Old Minix", 0x81: "Minix / old Linux",
    0x82: "Linux swap / Solaris", 0x83: "Linux", 0x84: "OS/2 hidden or Intel hibernation", 0x85: "Linux extended",
    0x86: "NTFS volume set", 0x87: "NTFS volume set", 0x88: "Linux plaintext", 0x8E: "Linux LVM",
    0xA0: "IBM Thinkpad hibernation", 0xA5: "FreeBSD", 0xA6: "OpenBSD", 0xA8: "Darwin UFS", 0xA9: "NetBSD",
    0xAB: "Darwin boot", 0xAF: "HFS / HFS+", 0xBE: "Solaris boot", 0xBF: "Solaris", 0xDA: "Non-FS data",
    0xDE: "Dell Utility", 0xEA: "Linux extended boot", 0xEB: "BeOS fs", 0xEE: "GPT", 0xEF: "EFI (FAT-12/16/32)",
    0xFB: "VMware VMFS", 0xFC: "VMware VMKCORE", 0xFD: "Linux raid autodetect", 0xFE: "LANstep",
}  # fmt: skip

#: the types that make an MBR partition a container of logical ones
EXTENDED_TYPES = (0x05, 0x0F, 0x85)
PROTECTIVE_TYPE = 0xEE

#: what an MBR type is called in GPT, where there is one meaning
MBR_TO_GUID = {
    0x01: BASIC_DATA_GUID, 0x04: BASIC_DATA_GUID, 0x06: BASIC_DATA_GUID, 0x07: BASIC_DATA_GUID,
    0x0B: BASIC_DATA_GUID, 0x0C: BASIC_DATA_GUID, 0x0E: BASIC_DATA_GUID,
    0x82: SWAP_GUID, 0x83: LINUX_GUID, 0x8E: LVM_GUID, 0xFD: RAID_GUID, 0xEF: EFI_SYSTEM_GUID,
    0x27: "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", 0x41: "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
    0xEA: "BC13C2FF-59E6-4262-A352-B275FD6F7172", 0xAF: "48465300-0000-11AA-AA11-00306543ECAC",
    0xFB: "AA31E02A-400F-11DB-9590-000C2911D1B8",
}  # fmt: skip


def guid_bytes(text: str) -> bytes:
    """The 16 bytes on disk of a GUID given as text (any case, with or without braces). Raises UsageError."""
    plain = text.strip().strip("{}").replace("-", "")
    try:
        raw = bytes.fromhex(plain)
    except ValueError:
        raw = b""
    if len(raw) != 16 or len(plain) != 32:
        raise UsageError(f"'{text}' is not a GUID", field="guid", value=text)
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(raw: bytes) -> str:
    """The text, in upper case, of 16 bytes on disk."""
    text = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:16]).hex().upper()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_guid() -> str:
    """A random (version 4) GUID."""
    raw = bytearray(os.urandom(16))
    raw[7] = raw[7] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return guid_text(bytes(raw))


def type_name(type: str | int) -> str:
    """What people call a type GUID or an MBR type byte; "unknown" where nobody has said."""
    if isinstance(type, int):
        return MBR_NAMES.get(type, "unknown")
    return GUID_NAMES.get(type, "unknown")
