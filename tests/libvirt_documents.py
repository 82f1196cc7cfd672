# ruff: noqa: E501  (a document is one line)
"""Documents of pools, volumes and secrets, good, odd and broken, to judge ours by the real one's answers."""

from __future__ import annotations

import itertools
import re

U = "2ec115d7-3a88-3ceb-bc12-0ac909a6fd87"


def p(type, src="", tgt="<path>/t</path>", extra=""):
    return f"<pool type='{type}'><name>x</name>{'<source>' + src + '</source>' if src is not None else ''}{'<target>' + tgt + '</target>' if tgt is not None else ''}{extra}</pool>"


def pool2(type="fs", name="<name>x</name>", uuid="", src="<device path='/a'/>", tgt="<path>/t</path>", extra=""):
    return f"<pool type='{type}'>{name}{uuid}<source>{src}</source><target>{tgt}</target>{extra}</pool>"


def volume(body="", tgt="", attr="", name="<name>v</name>", cap="<capacity>1024</capacity>"):
    return f"<volume{attr}>{name}{cap}{body}{'<target>' + tgt + '</target>' if tgt is not None else ''}</volume>"


POOLS = [
    "<pool type='dir'><name>x&lt;&amp;'\"&gt;\t\n é</name><target><path>/d//e/../f/</path></target></pool>",
    "<pool type='dir'><name> x </name><uuid>  </uuid><target><path> /d </path></target></pool>",
    "<pool type='dir'><name></name><source><name>y</name></source><target><path>/d/</path></target></pool>",
    "<pool type='dir'><source><name>y</name><device path='/dev/a' part_separator='yes'/><host name='h' port='12'/><dir path='/x'/><format type='bogus'/><vendor name='v'/><product name='p'/></source><target><path>/d/</path></target></pool>",
    "<pool type='fs'><name>x</name><source><device path='/dev/a' part_separator='yes'/><host name='h' port='12'/><dir path='/x'/><vendor name='v'/><product name='p'/></source><target><path>/d</path><permissions><mode>0755</mode><owner>1</owner><group>-1</group><label>foo</label></permissions></target></pool>",
    "<pool type='fs'><name>x</name><source><device path='/dev/a'/><device path='/dev/b'/><format type='bogus'/></source><target><path>/d</path></target></pool>",
    "<pool type='fs'><name>x</name><source><device/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host name='h'/><dir path='/x/'/><format type='nfs'/><protocol ver='4.1'/><name>ff</name></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host name='h'/><dir path='/x/'/><format type='cifs'/><protocol ver='4.1'/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host name='h'/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><dir path='x'/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host name='h'/><host name='i' port='1'/><dir path='x'/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host/><dir path='x'/></source><target><path>/d</path></target></pool>",
    "<pool type='netfs'><name>x</name><source><host name='h' port='x'/><dir path='x'/></source><target><path>/d</path></target></pool>",
    "<pool type='logical'><name>x</name></pool>",
    "<pool type='logical'><source><name>vg</name></source></pool>",
    "<pool type='logical'><name>n</name><source><name>vg</name><device path='/dev/b'/><device path='/dev/a'/></source></pool>",
    "<pool type='logical'><name>n</name><source><name>vg</name></source><target><path>/foo</path></target></pool>",
    "<pool type='logical'><name>n</name><source><name>v/g</name></source></pool>",
    "<pool type='disk'><name>n</name><source><device path='/dev/sda'><freeExtent start='1' end='2'/></device></source></pool>",
    "<pool type='disk'><name>n</name><source><device path='/dev/sda'><freeExtent start='1' end='2'/></device></source><target><path>/dev</path></target></pool>",
    "<pool type='disk'><name>n</name><source><device path='/dev/sda' part_separator='bogus'/></source><target><path>/dev</path></target></pool>",
    "<pool type='disk'><name>n</name><source><device path='/dev/sda' part_separator='no'/><format type='dos'/><vendor name=' v &lt;'/><product name=''/></source><target><path>/dev</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h' port='3260'/><device path='iqn.x'/><initiator><iqn name='iqn.i'/></initiator><auth type='chap' username='u'><secret uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'><secret usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'><secret type='iscsi' usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='ceph' username='u'><secret usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth username='u'><secret usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='bogus' username='u'><secret usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap'><secret usage='foo'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'/></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'><secret/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'><secret uuid='x'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='iqn.x'/><auth type='chap' username='u'><secret uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87' usage='x'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><device path='x'/></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='iscsi'><name>n</name><source><host name='h'/><device path='x'/></source></pool>",
    "<pool type='iscsi-direct'><name>n</name><source><host name='h'/><device path='x'/></source></pool>",
    "<pool type='iscsi-direct'><name>n</name><source><host name='h'/><device path='x'/><initiator><iqn name='iqn.i'/></initiator></source><target><path>/x</path></target></pool>",
    "<pool type='iscsi-direct'><name>n</name><source><host name='h'/><device path='x'/><initiator/></source></pool>",
    "<pool type='iscsi-direct'><name>n</name></pool>",
    p("scsi"),
    p("scsi", "<adapter/>"),
    p("scsi", "<adapter name='host0'/>"),
    p("scsi", "<adapter type='scsi_host' name='scsi_host2'/>"),
    p("scsi", "<adapter type='scsi_host'/>"),
    p("scsi", "<adapter type='bogus'/>"),
    p("scsi", "<adapter type='fc_host'/>"),
    p("scsi", "<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>"),
    p("scsi", "<adapter type='fc_host' wwnn='20000000c9831b4b'/>"),
    p(
        "scsi",
        "<adapter type='fc_host' name='a' parent='scsi_host5' managed='yes' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p(
        "scsi",
        "<adapter type='fc_host' parent='scsi_host5' managed='yes' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p(
        "scsi",
        "<adapter type='fc_host' parent='scsi_host5' managed='bogus' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p(
        "scsi",
        "<adapter type='fc_host' parent_wwnn='20000000c9831b4b' parent_wwpn='10000000c9831b4c' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p(
        "scsi",
        "<adapter type='fc_host' parent_wwnn='20000000c9831b4b' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p(
        "scsi",
        "<adapter type='fc_host' parent_fabric_wwn='20000000c9831b4b' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
    ),
    p("scsi", "<adapter type='fc_host' wwnn='zz' wwpn='10000000c9831b4b'/>"),
    p(
        "scsi",
        "<adapter type='scsi_host'><parentaddr unique_id='1'><address domain='0x0' bus='0x1f' slot='0x2' function='1'/></parentaddr></adapter>",
    ),
    p(
        "scsi",
        "<adapter type='scsi_host'><parentaddr><address domain='0x0' bus='0x1f' slot='0x2' function='1'/></parentaddr></adapter>",
    ),
    p("scsi", "<adapter type='scsi_host'><parentaddr unique_id='1'/></adapter>"),
    p(
        "scsi",
        "<adapter type='scsi_host' name='host1'><parentaddr unique_id='1'><address domain='0x0' bus='0x1f' slot='0x2' function='1'/></parentaddr></adapter>",
    ),
    p(
        "scsi",
        "<adapter type='scsi_host'><parentaddr unique_id='0'><address bus='0x1f' slot='32' function='1'/></parentaddr></adapter>",
    ),
    p(
        "scsi",
        "<adapter type='scsi_host'><parentaddr unique_id='0'><address bus='0x1f' slot='31'/></parentaddr></adapter>",
    ),
    p("scsi", "<adapter name='host0' wwnn='20000000c9831b4b'/>"),
    p("scsi", "<adapter name='host0' parent='20000000c9831b4b'/>"),
    p("mpath"),
    p("mpath", None),
    p("mpath", "<device path='/dev/x'/>", None),
    p("rbd", None, None),
    p("rbd", "<name>pp</name>", None),
    p("rbd", "<host name='h'/>", None),
    p(
        "rbd",
        "<name>pp</name><host name='h' port='6789'/><host name='i'/><auth type='ceph' username='admin'><secret uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/></auth>",
        "<path>/q</path><permissions><mode>0644</mode></permissions>",
        "<refresh><volume allocation='capacity'/></refresh>",
    ),
    p("rbd", "<name>pp</name><host name='h'/>", None, "<refresh><volume allocation='default'/></refresh>"),
    p("rbd", "<name>pp</name><host name='h'/>", None, "<refresh><volume allocation='bogus'/></refresh>"),
    p("rbd", "<name>pp</name><host name='h'/>", None, "<refresh><volume/></refresh>"),
    p("rbd", "<name>pp</name><host name='h'/>", None, "<refresh/>"),
    p("dir", extra="<refresh><volume allocation='capacity'/></refresh>"),
    p("sheepdog", "<name>pp</name><host name='h'/>", None),
    p("sheepdog", "<name>pp</name>", None),
    p("sheepdog", "<host name='h'/>", None),
    p("gluster", "<host name='h'/>", None),
    p("gluster", "<host name='h'/><name>v</name><dir path='/a/'/><format type='x'/>", None),
    p("gluster", "<name>v</name>", None),
    p("gluster", "<host name='h'/><name>v</name><dir path='a'/>", None),
    p("zfs", "<name>tank/v</name>", None),
    p("zfs", None, None),
    p("zfs", "<name>t</name><device path='/dev/a'/>", "<path>/q</path>"),
    p("vstorage", "<name>t</name>", None),
    p("vstorage", "<name>t</name>"),
    p("vstorage", None),
    p("dir", extra="<features><cow state='yes'/></features>"),
    p("dir", extra="<features><cow state='no'/></features>"),
    p("dir", extra="<features><cow state='maybe'/></features>"),
    p("dir", extra="<features><cow/></features>"),
    p("dir", extra="<features/>"),
    p("fs", "<device path='/a'/>", extra="<features><cow state='yes'/></features>"),
    p("netfs", "<host name='h'/><dir path='/a'/>", extra="<features><cow state='yes'/></features>"),
    p("dir", "<vendor name='a'/><format type='x'/><device path='/x'/><dir path='/y'/><name>z</name>"),
    *[
        p("dir", tgt="<path>/t</path><permissions>" + m + "</permissions>")
        for m in [
            "",
            "<mode>755</mode>",
            "<mode>07777</mode>",
            "<mode>1000</mode>",
            "<mode>777</mode>",
            "<mode> 755 </mode>",
            "<mode>0x1f</mode>",
            "<mode>-1</mode>",
            "<mode>-2</mode>",
            "<mode>+7</mode>",
            "<mode>0</mode>",
            "<mode></mode>",
            "<owner>0</owner>",
            "<owner>-1</owner>",
            "<owner>-2</owner>",
            "<owner>x</owner>",
            "<owner></owner>",
            "<owner>1.5</owner>",
            "<owner>4294967295</owner>",
            "<owner>4294967294</owner>",
            "<owner>4294967296</owner>",
            "<owner>2147483648</owner>",
            "<owner> 5 </owner>",
            "<owner>1e3</owner>",
            "<owner>0x10</owner>",
            "<group>x</group>",
            "<group>7</group>",
            "<label>a&lt;b</label>",
            "<mode>0700</mode><mode>0711</mode>",
            "<label></label>",
            "<owner>010</owner>",
            "<group>99999999999999999999</group>",
            "<mode>777777777777777777777777</mode>",
        ]
    ],
    *[
        p("dir", tgt=f"<path>{m}</path>")
        for m in [
            "/d//e/../f/",
            "//x",
            "///x",
            "//",
            "/",
            "x//y/",
            " /d ",
            "",
            "a/",
            "/a/./b/.",
            "/a'b&amp;\"&gt;",
            "/a\tb\nc",
        ]
    ],
    *[
        f"<pool type='dir'><name>{m}</name><target><path>/t</path></target></pool>"
        for m in [
            " x ",
            "a\tb",
            ".",
            "..",
            "é",
            "a&lt;b",
            "a&quot;",
            "a;b",
            "a<b>c</b>d",
            "<!-- c -->x",
            "a<![CDATA[<z>]]>b",
            "a&#10;b",
            "\n",
            "a&#13;b",
            "&#127;",
            "&#133;",
            "🐄",
        ]
    ],
    *[
        f"<pool type='dir'><name>x</name><uuid>{m}</uuid><target><path>/t</path></target></pool>"
        for m in [
            "",
            " ",
            "2ec115d7-3a88-3ceb-bc12-0ac909a6fd87",
            "2ec115d73a883cebbc120ac909a6fd87",
            " 2ec115d73a883cebbc120ac909a6fd87 ",
            "2EC115D7-3a88-3ceb-bc12-0ac909a6fd87",
            "2-ec115d73a883cebbc120ac909a6fd87",
            "2ec115d73a883cebbc120ac909a6fd8",
            "2ec115d73a883cebbc120ac909a6fd877",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "2ec115d73a883cebbc120ac909a6fd87-",
        ]
    ],
]


def faults():
    """Two faults in each document: which one is told?"""
    docs = []
    opts = {
        "name": ["", "<name>a/b</name>"],
        "uuid": ["<uuid>z</uuid>"],
        "src": [
            "",
            "<device/>",
            "<device path='/a'/><format type='x'/>",
            "<device path='/a'/><host/>",
            "<device path='/a'/><auth/>",
            "<device path='/a'/><protocol ver='3'/>",
            "<device path='/a'/><adapter type='x'/>",
            "<device path='/a' part_separator='q'/>",
        ],
        "tgt": [
            "",
            "<path>/t</path><permissions><mode>x</mode></permissions>",
            "<path>/t</path><permissions><owner>x</owner></permissions>",
        ],
        "extra": ["<features><cow state='q'/></features>", "<refresh><volume allocation='q'/></refresh>"],
    }
    for a, b in itertools.combinations(opts, 2):
        for x in opts[a]:
            for y in opts[b]:
                docs.append(pool2(**{a: x, b: y}))
    sources = opts["src"][1:]
    for x, y in itertools.permutations([z.replace("<device path='/a'/>", "") for z in sources], 2):
        docs.append(pool2(src=x + y))
    for ty, need in (
        ("netfs", "<host name='h'/><dir path='/d'/>"),
        ("iscsi-direct", "<host name='h'/><device path='/d'/><initiator><iqn name='x'/></initiator>"),
        ("rbd", "<host name='h'/><name>n</name>"),
        ("scsi", "<adapter name='h'/>"),
        ("gluster", "<host name='h'/>"),
    ):
        parts = re.findall(r"<initiator>.*?</initiator>|<[^>]*/>|<name>n</name>", need)
        for r in range(len(parts)):
            for c in itertools.combinations(parts, r):
                for kw in (
                    {},
                    {"name": ""},
                    {"uuid": "<uuid>z</uuid>"},
                    {"name": "<name>a/b</name>"},
                    {"tgt": ""},
                    {"extra": opts["extra"][0]},
                    {"extra": opts["extra"][1]},
                ):
                    docs.append(pool2(type=ty, src="".join(c), **kw))
    return docs


def details():
    """Each attribute and number in the ways that people write them."""
    docs = []
    docs += [
        pool2(
            src="<device path='/a'/><auth type='chap' username='u'><secret usage='s'/></auth><vendor name='v'/><product name='p'/><initiator><iqn name='i'/></initiator>"
        ),
        pool2(src="<device path='/a'/><auth type='none' username='u'><secret usage='s'/></auth>"),
        pool2(src="<device path=''/>"),
        pool2(src="<device path='/a'/><device path='b c'/>"),
        pool2("netfs", src="<host name=''/><dir path=''/>"),
        pool2("netfs", src="<host name='h' port='0'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port='-5'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port=''/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port=' 7'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port='99999999999'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port='70000'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h' port='0x10'/><dir path='x'/>"),
        pool2("netfs", src="<host name='h'/><dir path='x'/><protocol ver=''/>"),
        pool2("netfs", src="<host name='h'/><dir path='x'/><protocol ver='3'/>"),
        *[
            pool2(uuid=f"<uuid>{u}</uuid>")
            for u in [
                "2ec115d7-3a88-3ceb-bc12-0ac909a6fd87\n",
                "2e-c1-15-d7-3a883cebbc120ac909a6fd87",
                "2ec115d7--3a883cebbc120ac909a6fd87",
                "2ec115d7 3a883cebbc120ac909a6fd87",
                "-2ec115d73a883cebbc120ac909a6fd87",
                "2ec115d73a883cebbc120ac909a6fd87 x",
                "\t2ec115d73a883cebbc120ac909a6fd87",
            ]
        ],
        *[
            pool2(tgt=f"<path>/t</path><permissions>{m}</permissions>")
            for m in [
                "<mode> 755</mode>",
                "<owner> 5</owner>",
                "<owner>+5</owner>",
                "<owner>-0</owner>",
                "<owner>-1 </owner>",
                "<mode>+</mode>",
                "<mode>8</mode>",
                "<owner>4294967295</owner><group>-1</group>",
                "<mode>00000000000000000755</mode>",
                "<owner>000000000000000000000001</owner>",
            ]
        ],
        "<pool type='fs' xmlns='urn:x'><name>x</name></pool>",
        "<p:pool xmlns:p='urn:x' type='dir'><name>x</name><target><path>/t</path></target></p:pool>",
        "<p:pool type='dir'><name>x</name><target><path>/t</path></target></p:pool>",
    ]
    for d_ in [
        'domain="0x10000"',
        'slot="0"',
        'function="8"',
        'bus="0x100"',
        'bus="256"',
        'bus="010"',
        'slot="x"',
        'slot="-1"',
        'bus="08"',
        'domain="0"',
        'slot=""',
        'domain="4294967296"',
        'slot="0x1g"',
        'slot=" 1"',
    ]:
        docs.append(
            pool2(
                "scsi",
                src=f"<adapter type='scsi_host'><parentaddr unique_id='1'><address {d_}/></parentaddr></adapter>",
            )
        )
    for u in ["", "x", "-1", "2147483648", "0x10", " 1"]:
        docs.append(
            pool2(
                "scsi",
                src=f"<adapter type='scsi_host'><parentaddr unique_id='{u}'><address slot='1'/></parentaddr></adapter>",
            )
        )
    for a in [
        "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent_wwpn='20000000c9831b4b'",
        "wwnn='0x20000000c9831b4b' wwpn='10000000c9831b4b'",
        "wwnn='20000000C9831B4B' wwpn='10000000c9831b4b'",
        "wwnn='20000000c9831b4b' wwpn='q'",
        "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent_wwnn='q' parent_wwpn='r'",
        "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent_fabric_wwn='r'",
        "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' managed='no'",
        "wwnn='' wwpn=''",
        "managed='' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'",
        "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent_wwnn='20000000c9831b4b' parent_wwpn='20000000c9831b4b' parent='a' parent_fabric_wwn='20000000c9831b4b'",
    ]:
        docs.append(pool2("scsi", src=f"<adapter type='fc_host' {a}/>"))
    docs.append(pool2("scsi", src="<adapter type='default' name='a'/>"))
    docs.append(pool2("scsi", src="<adapter type='' name='a'/>"))
    docs.append(pool2("scsi", src="<adapter name='a'><parentaddr/></adapter>"))
    docs.append(pool2("scsi", src="<adapter name='a' wwpn='x'/>"))
    docs += [
        pool2(uuid=f"<uuid>{u}</uuid>")
        for u in [
            " - " + U,
            U + " ",
            U + "-",
            U + " -",
            "2e c115d7 - 3a88-3ceb-bc12-0ac909a6fd87",
            "2 ec115d7-3a88-3ceb-bc12-0ac909a6fd87",
            "--------" + U,
            "-",
            "\n" + U + "\n",
            "g" * 32,
        ]
    ]
    docs += [
        pool2("scsi", src="<adapter name='a'><parentaddr unique_id='1'/></adapter>"),
        pool2("scsi", src="<adapter><parentaddr unique_id='1'><address slot='1'/></parentaddr></adapter>"),
        pool2("scsi", src="<adapter type='scsi_host' name=''/>"),
        pool2("scsi", src="<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent=''/>"),
        pool2(
            "scsi",
            src="<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' parent_wwnn='' parent_wwpn=''/>",
        ),
        pool2("scsi", src="<adapter name=''/>"),
        pool2("scsi", src="<adapter wwnn='' name='a'/>"),
        pool2("scsi", src="<adapter parent='' name='a'/>"),
        pool2("scsi", src="<adapter parent_wwnn='q' name='a'/>"),
        pool2("scsi", src="<adapter managed='yes' name='a'/>"),
        pool2("scsi", src="<adapter managed='q' name='a'/>"),
        pool2("scsi", src="<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b' name='q'/>"),
        pool2("netfs", src="<host name='h'/><dir path='x'/><format type='glusterfs'/><protocol ver='3'/>"),
    ]
    for f in ('bus="-1"', 'function="300"', 'function="x"', 'domain="0x123456789"', 'domain="4294967295"'):
        docs.append(
            pool2(
                "scsi", src=f"<adapter type='scsi_host'><parentaddr unique_id='1'><address {f}/></parentaddr></adapter>"
            )
        )
    docs += [pool2("rbd", src="<name>n</name><host name='h'/>" + x) for x in ("<format type='raw'/>",)]
    docs += [
        pool2(src="<device path='/a'/><auth type='chap' username='u'><secret type='bogus' usage=''/></auth>"),
        pool2(src="<device path='/a'/><auth type='chap' username=''><secret usage='a'/></auth>"),
        pool2(src="<device path='/a'/><auth type='' username='b'><secret usage='a'/></auth>"),
        pool2(src="<device path='/a'/><auth type='chap' username='b'><secret type='' usage='a'/></auth>"),
    ]
    docs += [pool2(src="<device path='/a'/><vendor name='&lt;&amp;é&#9;x'/>"), pool2(tgt="<path>a&#9;b</path>")]
    return docs


VOLUMES = [
    volume(),
    volume(attr=" type='block'"),
    volume(attr=" type='bogus'"),
    volume(attr=" type='dir'"),
    volume(attr=" type=''"),
    volume(attr=" type='ploop'"),
    volume(tgt=None),
    volume(name=""),
    volume(name="<name/>"),
    volume(name="<name>a/b</name>"),
    volume(name="<name> v </name>"),
    volume(name="<name>..</name>"),
    volume("<key>k</key>"),
    volume("<key></key>"),
    volume("<allocation>5</allocation>"),
    volume("<physical>7</physical>"),
    volume("<physical unit='K'>7</physical>"),
    volume("<physical>x</physical>"),
    volume("<allocation>x</allocation>"),
    volume("<allocation/>"),
    *[
        volume(cap=f"<capacity{u}>{n}</capacity>")
        for u, n in [
            (" unit='K'", "1"),
            (" unit='KB'", 1),
            (" unit='KiB'", 1),
            (" unit='k'", 1),
            (" unit='kb'", 1),
            (" unit='kib'", 1),
            (" unit='Mb'", 1),
            (" unit='G'", 1),
            (" unit='T'", 0),
            (" unit='P'", 0),
            (" unit='E'", 0),
            (" unit='E'", 16),
            (" unit='E'", 7),
            (" unit='EB'", 18),
            (" unit='EB'", 19),
            (" unit='Z'", 1),
            (" unit='b'", 1),
            (" unit='B'", 1),
            (" unit='byte'", 1),
            (" unit='bytes'", 1),
            (" unit='BYTES'", 1),
            (" unit='bit'", 1),
            (" unit=''", 1),
            (" unit='KiBi'", 1),
            (" unit='Ki'", 1),
            (" unit=' K'", 1),
            ("", "x"),
            ("", "1K"),
            ("", "-1"),
            ("", "+1"),
            ("", " 1 "),
            ("", "1.5"),
            ("", "0x10"),
            ("", "010"),
            ("", "18446744073709551615"),
            ("", "18446744073709551616"),
            ("", "9223372036854775808"),
            ("", ""),
            ("", "1 2"),
            (" unit='K'", "18014398509481983"),
            (" unit='K'", "18014398509481984"),
            ("", " -1"),
            ("", "0"),
            ("", "-0"),
            ("", "\n1\n"),
        ]
    ],
    volume(cap=""),
    volume(cap="", body="<backingStore><path>/b</path></backingStore>"),
    volume(body="<backingStore/>"),
    volume(body='<backingStore><format type="qcow2"/></backingStore>'),
    volume(body="<backingStore><path>/b</path></backingStore>"),
    volume(body="<backingStore><path></path></backingStore>"),
    volume(
        body="<backingStore><path>/b//c/</path><format type='qcow2'/><permissions><mode>0644</mode><owner>1</owner><group>2</group><label>l</label></permissions><timestamps><atime>1.5</atime></timestamps></backingStore>"
    ),
    volume(body="<backingStore><path>/b</path><format type='bogus'/></backingStore>"),
    *[
        volume(tgt=t)
        for t in [
            "<path>/foo</path>",
            "<format type='qcow2'/>",
            "<format type='bogus'/>",
            "<format type=''/>",
            "<format/>",
            "<format type='raw'/>",
            "<format type='none'/>",
            "<format type='unknown'/>",
            "<format type='auto'/>",
            "<format type='iso'/>",
            "<format type='luks'/>",
            "<format type='ext4'/>",
            "<format type='dir'/>",
            "<format type='cow'/>",
            "<format type='linux'/>",
            "<format type='auto-safe'/>",
            "<permissions/>",
            "<permissions><mode>0600</mode></permissions>",
            "<permissions><owner>3</owner></permissions>",
            "<permissions><label>l</label></permissions>",
            "<permissions><mode>9</mode></permissions>",
            "<timestamps><atime>1</atime><mtime>2.000000003</mtime></timestamps>",
            "<timestamps/>",
            "<compat>1.1</compat>",
            "<compat>0.10</compat>",
            "<compat>1</compat>",
            "<compat>a.b</compat>",
            "<compat>1.1x</compat>",
            "<compat></compat>",
            "<compat>2.0</compat>",
            "<compat> 1.1</compat>",
            "<compat>9999999999999.1</compat>",
            "<features><lazy_refcounts/></features>",
            "<features><extended_l2/><lazy_refcounts/></features>",
            "<compat>0.10</compat><features><lazy_refcounts/></features>",
            "<compat>1.1</compat><features><lazy_refcounts/><extended_l2/></features>",
            "<compat>1.1</compat><features><bogus/></features>",
            "<compat>1.1</compat><features/>",
            "<features/>",
            "<nocow/>",
            "<nocow>x</nocow>",
            "<clusterSize unit='KiB'>64</clusterSize>",
            "<clusterSize>65536</clusterSize>",
            "<clusterSize>x</clusterSize>",
            "<clusterSize unit='X'>1</clusterSize>",
            "<clusterSize/>",
            "<clusterSize>0</clusterSize>",
        ]
    ],
    *[
        volume(tgt=t)
        for t in [
            "<encryption/>",
            "<encryption format='luks'/>",
            "<encryption format='bogus'/>",
            "<encryption format='default'/>",
            "<encryption format='qcow'/>",
            "<encryption format='luks2'/>",
            "<encryption format='luks' engine='qemu'/>",
            "<encryption format='luks' engine='bogus'/>",
            "<encryption format='luks'><secret type='passphrase' uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' uuid='2EC115D73a883cebbc120ac909a6fd87'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='/a/b'/></encryption>",
            "<encryption format='luks'><secret type='bogus' usage='/a/b'/></encryption>",
            "<encryption format='luks'><secret usage='/a/b'/></encryption>",
            "<encryption format='luks'><secret type='passphrase'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' uuid='zz'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><secret type='passphrase' usage='b'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher name='aes' size='256' mode='cbc' hash='sha256'/><ivgen name='plain64' hash='sha256'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher name='aes' size='256'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher name='aes'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher size='256'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher name='aes' size='x'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><ivgen name='plain64'/></encryption>",
            "<encryption format='luks'><secret type='passphrase' usage='a'/><cipher name='aes' size='256'/><ivgen/></encryption>",
            "<encryption format='qcow'><secret type='passphrase' usage='a'/><cipher name='aes' size='256'/></encryption>",
            "<encryption format='luks2' engine='librbd'><secret type='passphrase' usage='a'/></encryption>",
            "<encryption format='default'><secret type='passphrase' usage='a'/></encryption>",
        ]
    ],
    volume("<source><device path='/dev/a'><extent start='1' end='2'/></device></source>"),
    volume("<source><device path='/dev/a'/></source>"),
    volume("<bogus a='b'>c</bogus>"),
    "<vol><name>x</name></vol>",
    "<volume/>",
]

#: pool type -> a source that it takes
SOURCES = {
    "fs": "<device path='/a'/>",
    "netfs": "<host name='h'/><dir path='/a'/>",
    "logical": "",
    "disk": "<device path='/a'/>",
    "iscsi": "<host name='h'/>",
    "iscsi-direct": "<host name='h'/><device path='x'/><initiator><iqn name='i'/></initiator>",
    "scsi": "<adapter name='host0'/>",
    "mpath": "",
    "rbd": "<host name='h'/><name>n</name>",
    "sheepdog": "<host name='h'/>",
    "gluster": "<host name='h'/>",
    "zfs": "",
    "vstorage": "",
    "dir": "",
}
FORMATS = [None, "raw", "qcow2", "none", "linux", "bogus", "auto", "ext4", "extended", "lvm2"]


def volume_of_format(name: str | None) -> str:
    return volume("<backingStore><path>/b</path></backingStore>", f"<format type='{name}'/>" if name else "")


BROKEN: list[str | bytes] = [
    "not xml",
    "",
    "   ",
    "\n",
    "<",
    "<a",
    "<a ",
    "<pool",
    "<pool>",
    "<pool>\n",
    "<pool>\n\n",
    "<pool><name>x</pool>",
    "<pool>\n<name>x\n</pool>",
    "<pool></pool>x",
    "<pool/>\n<pool/>",
    "<pool/><!-- ",
    "<pool type=dir/>",
    "<pool type='dir/>",
    "<pool type='a' type='b'/>",
    "<pool><</pool>",
    "<pool>&foo;</pool>",
    "<pool>&#0;</pool>",
    "<pool>&#x1;</pool>",
    "<pool>&amp</pool>",
    "<pool>&</pool>",
    "<pool>]]></pool>",
    "<pool type='<'/>",
    "<?xml version='1.0'?>\n",
    "<?xml version='1.0'",
    "<?xml?><pool/>",
    "  <?xml version='1.0'?><pool/>",
    "<?xml version='2.0'?><pool/>",
    "<?xml version='1.0' encoding='bogus'?><pool/>",
    "<pool><!-- a -- b --></pool>",
    "<pool><![CDATA[ x</pool>",
    "<pool><?pi </pool>",
    "<pool>\t<na\tme></pool>",
    "<pool>\n\t\t<name>x</nome>\n</pool>\n",
    "<1pool/>",
    "<pool 1a='b'/>",
    "<pool a/>",
    "<pool a='b'c='d'/>",
    "<pool>\x01</pool>",
    "<pool>\x7f</pool><",
    "<pool>é<b></pool>",
    "<pool>\né\t<b></pool>",
    "<pool a='&#xffff;'/>",
    "<pool></pool\n",
    "<pool></pool x>",
    "<a:b:c/>",
    "<pool:/>",
    "<pool><a><b></a></b></pool>",
    "text<pool/>",
    "\ufeff<pool><x></pool>",
    "<pool>\r\n<x>\r\n</pool>",
    "<pool xmlns:a='u'><b:c/></poo>",
    "<pool\n\n\n>\n<",
    "&amp;",
    "<!-- x --><pool><b></pool>",
    "<pool></pool>\n\n\nx",
    "<pool></>",
    "</pool>",
    "<pool><name>x</name>\n  <uuid>zz</uuid\n</pool>",
    "<pool><a b='c\nd'><e></pool>",
    "<pool>" + "a" * 100 + "<b></pool>",
    "<pool><b>" + " " * 200 + "</pool>",
    "<pool>%s</pool>",
    "<?xml version='1.0' encoding='UTF-16'?><pool><b></pool>",
    "<?xml version='1.0' encoding='ISO-8859-1'?><pool><b></pool>",
    "<pool>\n<!DOCTYPE x>\n</pool>",
    "<a" + "b" * 60000 + "/>",
    "<pool " + "x" * 50001 + "='1'/>",
    "<d>" * 300,
    b"<pool>\xff</pool>",
    b"<pool>\xc3</pool>",
    b"<pool>\xc3\x28</pool>",
    b"<pool a='\xff'/>",
    b"\xff\xfe<\0p\0",
    b"<pool>\0</pool>",
    b"\0",
    b"<pool/>\0<",
    b"<pool>\xed\xa0\x80</pool>",
    b"<pool>\xef\xbf\xbe</pool>",
    b"<pool>\n\xe9\xe8<b></pool>",
    b"<?xml version='1.0' encoding='ISO-8859-1'?><pool>\xe9<b></pool>",
    b"<p\xc3\xa9ol>",
    b"<pool>\xf5\x80\x80\x80</pool>",
    b"<pool>\xc0\x80</pool>",
]

SECRETS = [
    "<secret/>",
    "<secret ephemeral='yes'/>",
    "<secret ephemeral='x'/>",
    "<secret private='maybe'/>",
    "<secret><uuid>zz</uuid></secret>",
    "<secret><uuid></uuid></secret>",
    "<secret ephemeral='yes' private='yes'><uuid>2ec115d7-3a88-3ceb-bc12-0ac909a6fd81</uuid><description>d&lt;'</description><usage type='volume'><volume>/a//b/</volume></usage></secret>",
    "<secret><usage type='volume'/></secret>",
    "<secret><usage type='ceph'/></secret>",
    "<secret><usage type='iscsi'/></secret>",
    "<secret><usage type='tls'/></secret>",
    "<secret><usage type='vtpm'/></secret>",
    "<secret><usage type='bogus'/></secret>",
    "<secret><usage/></secret>",
    "<secret><usage type='none'/></secret>",
    "<secret><usage type='ceph'><name>c</name></usage></secret>",
    "<secret><usage type='iscsi'><target>c</target></usage></secret>",
    "<secret><usage type='tls'><name>c</name></usage></secret>",
    "<secret><usage type='vtpm'><name>c</name></usage><description></description></secret>",
    "<pool/>",
    "not",
    "<secret><description>a\nb</description><usage type='none'><volume>x</volume></usage></secret>",
    "<secret><usage type='volume'><volume/></usage></secret>",
    "<secret><usage type='volume'><name>x</name></usage></secret>",
    "<secret ephemeral='' private='no'/>",
    "<secret><uuid>2EC115D73a883cebbc120ac909a6fd80</uuid></secret>",
]


def extension(type: str, attributes: str, body: str) -> str:
    return f"<pool type='{type}' {attributes}><name>x</name><uuid>{U}</uuid><source>{SOURCES[type]}</source><target><path>/t</path></target>{body}</pool>"


FS = "xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'"
RBD = "xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'"
#: what only the drivers of each type read: a real daemon's, not the test driver's
EXTENSIONS = [
    extension("fs", FS, "<fs:mount_opts><fs:option name='sync'/><fs:option name='lazy&apos;t'/></fs:mount_opts>"),
    extension("netfs", FS, "<fs:mount_opts><fs:option name='sync'/></fs:mount_opts>"),
    extension("netfs", FS.replace(":fs=", ":q="), "<q:mount_opts><q:option name='sync'/></q:mount_opts>"),
    extension("netfs", FS, "<fs:mount_opts/>"),
    extension("netfs", FS, ""),
    extension("netfs", "", f"<fs:mount_opts {FS}><fs:option name='sync'/></fs:mount_opts>"),
    extension("netfs", FS, "<fs:mount_opts><fs:option/></fs:mount_opts>"),
    extension("netfs", FS, "<fs:mount_opts><fs:option name=''/></fs:mount_opts>"),
    extension("netfs", FS, "<fs:mount_opts><fs:option name='a' value='b'/></fs:mount_opts>"),
    extension(
        "fs",
        FS,
        "<fs:mount_opts><fs:option name='sync'/></fs:mount_opts><fs:mount_opts><fs:option name='two'/></fs:mount_opts>",
    ),
    extension("fs", "", "<features><cow state='yes'/></features>"),
    extension("dir", "", "<features><cow state='no'/></features>"),
    extension("dir", "", "<features/>"),
]
RBD_EXTENSIONS = [
    extension("rbd", RBD, f"<rbd:config_opts>{o}</rbd:config_opts>")
    for o in [
        "<rbd:option name='a' value='b'/><rbd:option name='c' value='d'/>",
        "<rbd:option name='a'/>",
        "<rbd:option value='a'/>",
        "<rbd:option name='' value=''/>",
        "<rbd:option name='a' value=''/>",
        "",
    ]
]
