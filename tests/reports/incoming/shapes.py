# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports in the shapes that reporters give them, and the mails they come in. All names and numbers are made up.

Each shape differs from the schema in the way its reporter does: elements left out, empty, added or out of order.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from email.message import EmailMessage

BEGIN, END = 1_764_028_800, 1_764_115_199  # 2025-11-25

GOOGLE = f"""<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <version>1.0</version>
  <report_metadata>
    <org_name>google.com</org_name>
    <email>noreply-dmarc-support@google.com</email>
    <extra_contact_info>https://support.google.com/a/answer/2466580</extra_contact_info>
    <report_id>1234567890123456789</report_id>
    <date_range>
      <begin>{BEGIN}</begin>
      <end>{END}</end>
    </date_range>
  </report_metadata>
  <policy_published>
    <domain>example.org</domain>
    <adkim>r</adkim>
    <aspf>r</aspf>
    <p>reject</p>
    <sp>reject</sp>
    <pct>100</pct>
    <np>reject</np>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.10</source_ip>
      <count>12</count>
      <policy_evaluated>
        <disposition>none</disposition>
        <dkim>pass</dkim>
        <spf>fail</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>example.org</header_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>example.org</domain>
        <result>pass</result>
        <selector>s1</selector>
      </dkim>
      <spf>
        <domain>lists.example</domain>
        <result>pass</result>
      </spf>
    </auth_results>
  </record>
  <record>
    <row>
      <source_ip>2001:DB8::25</source_ip>
      <count>3</count>
      <policy_evaluated>
        <disposition>reject</disposition>
        <dkim>fail</dkim>
        <spf>fail</spf>
        <reason>
          <type>local_policy</type>
          <comment>arc=fail</comment>
        </reason>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>mail.example.org</header_from>
    </identifiers>
    <auth_results>
      <spf>
        <domain>spoof.example</domain>
        <result>softfail</result>
      </spf>
    </auth_results>
  </record>
</feedback>
"""

MICROSOFT = (
    '<?xml version="1.0"?>\n<feedback xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<version>1.0</version><report_metadata><org_name>Enterprise Outlook</org_name>"
    "<email>dmarcreport@microsoft.com</email><report_id>0123456789abcdef0123456789abcdef</report_id>"
    f"<date_range><begin>{BEGIN}</begin><end>{END + 1}</end></date_range></report_metadata>"
    "<policy_published><domain>example.org</domain><adkim>r</adkim><aspf>r</aspf><p>none</p><sp>none</sp>"
    "<pct>100</pct><fo>0</fo></policy_published>"
    "<record><row><source_ip>192.0.2.11</source_ip><count>1</count><policy_evaluated>"
    "<disposition>none</disposition><dkim>pass</dkim><spf>pass</spf></policy_evaluated></row>"
    "<identifiers><envelope_to>customer.example</envelope_to><envelope_from>example.org</envelope_from>"
    "<header_from>example.org</header_from></identifiers>"
    "<auth_results><dkim><domain>example.org</domain><selector>s1</selector><result>pass</result></dkim>"
    "<spf><domain>example.org</domain><scope>mfrom</scope><result>pass</result></spf></auth_results></record>"
    "</feedback>"
)

YAHOO = f"""<?xml version="1.0"?>
<feedback>
  <report_metadata>
    <org_name>Yahoo</org_name>
    <email>dmarchelp@yahooinc.com</email>
    <report_id>{BEGIN}.123456</report_id>
    <date_range>
      <begin>{BEGIN}</begin>
      <end>{END} </end>
    </date_range>
  </report_metadata>
  <policy_published>
    <domain>example.org</domain>
    <adkim>r</adkim>
    <aspf>r</aspf>
    <p>none</p>
    <pct>100</pct>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.12</source_ip>
      <count>4</count>
      <policy_evaluated>
        <disposition>none</disposition>
        <dkim>pass</dkim>
        <spf>pass</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>example.org</header_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>example.org</domain>
        <selector>s1</selector>
        <result>pass</result>
      </dkim>
      <dkim>
        <domain>sender.example</domain>
        <selector>k2</selector>
        <result>permerror</result>
      </dkim>
      <spf>
        <domain>example.org</domain>
        <result>pass</result>
      </spf>
    </auth_results>
  </record>
</feedback>
"""

#: One line, upper case results, an empty selector.
MAILRU = (
    '<?xml version="1.0" ?><feedback><report_metadata><date_range>'
    f"<begin>{BEGIN}</begin><end>{END + 1}</end></date_range>"
    "<email>dmarc_support@corp.mail.ru</email><extra_contact_info>http://help.mail.ru/mail-help</extra_contact_info>"
    "<org_name>Mail.Ru</org_name><report_id>43298574390857430987543987</report_id></report_metadata>"
    "<policy_published><adkim>r</adkim><aspf>r</aspf><domain>example.org</domain><p>none</p><pct>100</pct>"
    "<sp>none</sp></policy_published>"
    "<record><auth_results><dkim><domain>example.org</domain><result>Pass</result><selector></selector></dkim>"
    "<spf><domain>example.org</domain><result>pass</result><scope>mfrom</scope></spf></auth_results>"
    "<identifiers><header_from>example.org</header_from></identifiers>"
    "<row><count>7</count><policy_evaluated><disposition>none</disposition><dkim>Pass</dkim><spf>pass</spf>"
    "</policy_evaluated><source_ip>192.0.2.13</source_ip></row></record></feedback>"
)

#: Fields that are empty rather than left out.
MIMECAST = f"""<?xml version="1.0" encoding="utf-8"?>
<feedback>
 <report_metadata>
  <org_name>Mimecast.Org</org_name>
  <email>no-reply@eu.dmarc-reports.mimecast.example</email>
  <extra_contact_info></extra_contact_info>
  <report_id>aabbccddeeff00112233445566778899</report_id>
  <date_range><begin>{BEGIN}</begin><end>{END}</end></date_range>
  <error></error>
 </report_metadata>
 <policy_published><domain>example.org</domain><adkim/><aspf/><p>none</p><sp/><pct>100</pct><fo/></policy_published>
 <record>
  <row>
   <source_ip>192.0.2.14</source_ip>
   <count>2</count>
   <policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>pass</spf></policy_evaluated>
  </row>
  <identifiers><envelope_to/><envelope_from>bounce.example.org</envelope_from><header_from>example.org</header_from>
  </identifiers>
  <auth_results><spf><domain>bounce.example.org</domain><scope>mfrom</scope><result>pass</result></spf></auth_results>
 </record>
</feedback>
"""

#: RFC 9990: its namespace, np, testing, discovery method, generator, languages of texts.
MAIL_DMARC = f"""<?xml version="1.0"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata>
    <org_name>Small Host</org_name>
    <email>dmarc@small.example</email>
    <extra_contact_info xml:lang="en">https://small.example/dmarc</extra_contact_info>
    <report_id>{BEGIN}.1.example.org@small.example</report_id>
    <date_range><begin>{BEGIN}</begin><end>{END}</end></date_range>
    <error lang="en">the reporter lost an hour</error>
    <generator>Mail::DMARC 1.20260301</generator>
  </report_metadata>
  <policy_published>
    <discovery_method>treewalk</discovery_method>
    <domain>example.org</domain>
    <p>reject</p><sp>quarantine</sp><np>reject</np><fo>1</fo><testing>y</testing>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.15</source_ip>
      <count>5</count>
      <policy_evaluated>
        <disposition>none</disposition><dkim>fail</dkim><spf>fail</spf>
        <reason><type>policy_test_mode</type></reason>
        <reason><type>mailing_list</type><comment lang="en">known list</comment></reason>
      </policy_evaluated>
    </row>
    <identifiers><header_from>example.org</header_from><envelope_from></envelope_from></identifiers>
    <auth_results>
      <dkim><domain>example.org</domain><selector>s1</selector><result>fail</result>
        <human_result lang="en">body hash did not verify</human_result></dkim>
    </auth_results>
  </record>
</feedback>
"""

#: No selector, and a report-id in which the domain stands.
OPENDMARC = f"""<?xml version="1.0" encoding="windows-1252"?>
<feedback>
  <report_metadata>
    <org_name>Café Host</org_name>
    <email>postmaster@opendmarc.example</email>
    <report_id>example.org:{BEGIN}</report_id>
    <date_range><begin>{BEGIN}</begin><end>{END}</end></date_range>
  </report_metadata>
  <policy_published><domain>EXAMPLE.org.</domain><adkim>s</adkim><aspf>s</aspf><p>none</p><sp>none</sp><pct>100</pct>
  </policy_published>
  <record>
    <row><source_ip>192.0.2.16</source_ip><count>1</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results><spf><domain>example.org</domain><result>none</result></spf>
      <dkim><domain>example.org</domain><result>pass</result></dkim></auth_results>
  </record>
</feedback>
"""

RSPAMD = f"""<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
<version>1.0</version>
<report_metadata>
<org_name>Rspamd Host</org_name>
<email>dmarc@rspamd.example</email>
<report_id>example.org.{BEGIN}.{END}</report_id>
<date_range><begin>{BEGIN}</begin><end>{END}</end></date_range>
</report_metadata>
<policy_published><domain>example.org</domain><adkim>r</adkim><aspf>r</aspf><p>quarantine</p><sp>quarantine</sp>
<pct>100</pct></policy_published>
<record>
<row><source_ip>192.0.2.17</source_ip><count>2</count><policy_evaluated><disposition>quarantine</disposition>
<dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><header_from>b\u00fccher.example.org</header_from></identifiers>
<auth_results><dkim><domain>other.example</domain><result>pass</result><selector>x</selector></dkim>
<spf><domain>other.example</domain><result>fail</result></spf></auth_results>
</record>
</feedback>
"""

AGGREGATES = {
    "google": GOOGLE.encode(),
    "microsoft": MICROSOFT.encode(),
    "yahoo": YAHOO.encode(),
    "mailru": MAILRU.encode(),
    "mimecast": MIMECAST.encode(),
    "mail-dmarc": MAIL_DMARC.encode(),
    "opendmarc": OPENDMARC.encode("windows-1252"),
    "rspamd": RSPAMD.encode(),
}

#: RFC 8460, appendix B, in the shape that Google and Microsoft send.
TLS = {
    "organization-name": "Google Inc.",
    "date-range": {"start-datetime": "2025-11-25T00:00:00Z", "end-datetime": "2025-11-25T23:59:59Z"},
    "contact-info": "smtp-tls-reporting@google.com",
    "report-id": "2025-11-25T00:00:00Z_example.org",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: testing", "mx: mx.example.org", "max_age: 86400"],
                "policy-domain": "example.org",
                "mx-host": ["mx.example.org"],
            },
            "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "2001:db8:abcd:12::1",
                    "receiving-mx-hostname": "mx1.example.org",
                    "failed-session-count": 100,
                },
                {
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "192.0.2.200",
                    "receiving-mx-hostname": "mx2.example.org",
                    "receiving-ip": "203.0.113.56",
                    "failed-session-count": 203,
                    "additional-information": "https://reports.google.example/id?a=1",
                },
            ],
        }
    ],
}

#: RFC 9991, 4 and RFC 6591, 3.
FEEDBACK = """Feedback-Type: auth-failure
User-Agent: Reporter/1.0
Version: 1
Original-Mail-From: <bounce@spoof.example>
Arrival-Date: Tue, 25 Nov 2025 13:14:15 +0100
Source-IP: 192.0.2.99
Reported-Domain: example.org
Authentication-Results: mx.reporter.example; dmarc=fail
 header.from=example.org
Auth-Failure: dmarc
Delivery-Result: reject
Identity-Alignment: none
Reporting-MTA: dns; mx.reporter.example
DKIM-Domain: spoof.example
DKIM-Selector: s9
Incidents: 2
"""

SAMPLE = """From: "The Bank" <ann@example.org>
To: victim@reporter.example
Subject: =?gb2312?B?xOO6ww==?= your account
Message-ID: <spoof-1@spoof.example>
Date: Tue, 25 Nov 2025 13:14:10 +0100

"""


def tls() -> bytes:
    return json.dumps(TLS, indent=2).encode()


def zipped(content: bytes, name: str = "google.com!example.org!1764028800!1764115199.xml", *more: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for number, further in enumerate(more):
            archive.writestr(f"{number}.xml", further)
    return packed.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content)


def mail(
    content: bytes,
    kind: str = "application/gzip",
    name: str = "reporter.example!example.org!1764028800!1764115199.xml.gz",
    results: str = "",
) -> bytes:
    """A report as the attachment of a mail."""
    message = EmailMessage()
    if results:
        message["Authentication-Results"] = results
    message["From"] = "DMARC reports <noreply@reporter.example>"
    message["To"] = "dmarc@example.org"
    message["Subject"] = "Report domain: example.org Submitter: reporter.example Report-ID: <1.example>"
    message["Message-ID"] = "<report-1@reporter.example>"
    message["Date"] = "Wed, 26 Nov 2025 01:02:03 +0000"
    message.set_content("This is an aggregate report from reporter.example.\n")
    main, _, sub = kind.partition("/")
    message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message.as_bytes().replace(b"\n", b"\r\n")


def failure_mail(feedback: str = FEEDBACK, sample: str = SAMPLE, sample_type: str = "message/rfc822") -> bytes:
    """A failure report (RFC 5965, 2)."""
    return (
        (
            "Authentication-Results: mx.example.org; dmarc=pass header.from=reporter.example\n"
            "From: abuse <noreply@reporter.example>\nTo: ruf@example.org\nSubject: FW: your account\n"
            "Message-ID: <failure-1@reporter.example>\nDate: Tue, 25 Nov 2025 12:20:00 +0000\nMIME-Version: 1.0\n"
            'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
            "--b\nContent-Type: text/plain\n\nThis is an authentication failure report.\n"
            f"--b\nContent-Type: message/feedback-report\n\n{feedback}\n"
            f"--b\nContent-Type: {sample_type}\n\n{sample}\n--b--\n"
        )
        .replace("\n", "\r\n")
        .encode()
    )


def notification(action: str = "failed", status: str = "5.1.1", inner: str = "Content-Type: text/plain\n\nx") -> bytes:
    """A delivery status notification (RFC 3464), as Postfix writes it, with a message in it."""
    return (
        (
            "From: MAILER-DAEMON@mx.example.com (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\n"
            "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n"
            'Content-Type: multipart/report; report-type=delivery-status;\n boundary="4Q.1764/mx.example.com"\n'
            "Content-Transfer-Encoding: 8bit\n\nThis is a MIME-encapsulated message.\n\n"
            "--4Q.1764/mx.example.com\nContent-Description: Notification\nContent-Type: text/plain; charset=utf-8\n\n"
            "I'm sorry to have to inform you that your message could not be delivered.\n\n"
            "--4Q.1764/mx.example.com\nContent-Description: Delivery report\n"
            "Content-Type: message/delivery-status\n\n"
            "Reporting-MTA: dns; mx.example.com\nX-Postfix-Queue-ID: 4Q\n\n"
            "Final-Recipient: rfc822; d@example.com\nOriginal-Recipient: rfc822;d@example.com\n"
            f"Action: {action}\nStatus: {status}\nDiagnostic-Code: X-Postfix; unknown user: d\n\n"
            f"--4Q.1764/mx.example.com\nContent-Description: Undelivered Message\n{inner}\n"
            "--4Q.1764/mx.example.com--\n"
        )
        .replace("\n", "\r\n")
        .encode()
    )
