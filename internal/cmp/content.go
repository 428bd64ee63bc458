package cmp

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertRepMessage is the content of ip, cp and kup (RFC 9810, 5.3.4):
//
//	CertRepMessage ::= SEQUENCE {
//	    caPubs       [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL,
//	    response         SEQUENCE OF CertResponse }
type CertRepMessage struct {
	CAPubs   [][]byte // DER certificates
	Response []CertResponse
}

func (m *CertRepMessage) code(c codec) {
	c.sequence("CertRepMessage", func(c codec) {
		c.explicit(1, "caPubs", len(m.CAPubs) > 0, func(c codec) { certificates(c, "caPubs", &m.CAPubs) })
		list(c, "response", 0, &m.Response, (*CertResponse).code)
	})
}

// CertResponse answers one request (RFC 9810, 5.3.4):
//
//	CertResponse ::= SEQUENCE {
//	    certReqId           INTEGER,
//	    status              PKIStatusInfo,
//	    certifiedKeyPair    CertifiedKeyPair    OPTIONAL,
//	    rspInfo             OCTET STRING        OPTIONAL }
type CertResponse struct {
	CertReqID        int64
	Status           PKIStatusInfo
	CertifiedKeyPair *CertifiedKeyPair
	RspInfo          []byte
}

func (r *CertResponse) code(c codec) {
	c.sequence("CertResponse", func(c codec) {
		integer(c, "certReqId", &r.CertReqID)
		r.Status.code(c)
		optional(c, cbasn1.SEQUENCE, &r.CertifiedKeyPair, (*CertifiedKeyPair).code)
		if c.has(cbasn1.OCTET_STRING, r.RspInfo != nil) {
			c.octets("rspInfo", &r.RspInfo)
		}
	})
}

// CertifiedKeyPair holds the certificate (RFC 9810, 5.3.4):
//
//	CertifiedKeyPair ::= SEQUENCE {
//	    certOrEncCert       CertOrEncCert,
//	    privateKey      [0] EncryptedKey        OPTIONAL,
//	    publicationInfo [1] PKIPublicationInfo  OPTIONAL }
//	CertOrEncCert ::= CHOICE {
//	    certificate     [0] CMPCertificate,
//	    encryptedCert   [1] EncryptedKey }
//
// Exactly one of Certificate and EncryptedCert is set.
// Encrypted values are kept as DER and never opened.
type CertifiedKeyPair struct {
	Certificate     []byte
	EncryptedCert   []byte
	PrivateKey      []byte
	PublicationInfo []byte
}

func (p *CertifiedKeyPair) code(c codec) {
	c.sequence("CertifiedKeyPair", func(c codec) {
		if c.has(explicit(1), p.EncryptedCert != nil) {
			c.explicitAny(1, "encryptedCert", &p.EncryptedCert)
		} else {
			c.codeTag(explicit(0), "certificate",
				func(c codec) { c.element(cbasn1.SEQUENCE, "certificate", &p.Certificate) })
		}
		c.explicitAny(0, "privateKey", &p.PrivateKey)
		c.explicitAny(1, "publicationInfo", &p.PublicationInfo)
	})
}

// CertConfirmContent is the content of certConf (RFC 9810, 5.3.18). Empty means that all
// certificates are rejected.
type CertConfirmContent []CertStatus

func (content *CertConfirmContent) code(c codec) {
	list(c, "CertConfirmContent", 0, (*[]CertStatus)(content), (*CertStatus).code)
}

// CertStatus accepts or rejects one certificate (RFC 9810, 5.3.18):
//
//	CertStatus ::= SEQUENCE {
//	    certHash    OCTET STRING,
//	    certReqId   INTEGER,
//	    statusInfo  PKIStatusInfo OPTIONAL,
//	    hashAlg [0] AlgorithmIdentifier OPTIONAL }
type CertStatus struct {
	CertHash   []byte
	CertReqID  int64
	StatusInfo *PKIStatusInfo       // nil: accepted
	HashAlg    *AlgorithmIdentifier // nil: the hash of the certificate's signature; needs PVNO3
}

func (s *CertStatus) code(c codec) {
	c.sequence("CertStatus", func(c codec) {
		c.octets("certHash", &s.CertHash)
		integer(c, "certReqId", &s.CertReqID)
		optional(c, cbasn1.SEQUENCE, &s.StatusInfo, (*PKIStatusInfo).code)
		c.explicit(0, "hashAlg", s.HashAlg != nil, func(c codec) {
			if c.in != nil {
				s.HashAlg = &AlgorithmIdentifier{}
			}
			s.HashAlg.code(c, "hashAlg")
		})
	})
}

// ErrorMsgContent is the content of error (RFC 9810, 5.3.21):
//
//	ErrorMsgContent ::= SEQUENCE {
//	    pKIStatusInfo          PKIStatusInfo,
//	    errorCode              INTEGER           OPTIONAL,
//	    errorDetails           PKIFreeText       OPTIONAL }
type ErrorMsgContent struct {
	StatusInfo   PKIStatusInfo
	ErrorCode    *big.Int
	ErrorDetails PKIFreeText
}

func (content *ErrorMsgContent) code(c codec) {
	c.sequence("ErrorMsgContent", func(c codec) {
		content.StatusInfo.code(c)
		if c.has(cbasn1.INTEGER, content.ErrorCode != nil) {
			c.bigInt(cbasn1.INTEGER, "errorCode", &content.ErrorCode)
		}
		if c.has(cbasn1.SEQUENCE, len(content.ErrorDetails) > 0) {
			content.ErrorDetails.code(c, "errorDetails")
		}
	})
}

// PollReqContent is the content of pollReq: the certReqIds asked about, -1 for an answer that is
// not a certificate response (RFC 9810, 5.3.22).
type PollReqContent []int64

func (content *PollReqContent) code(c codec) {
	list(c, "PollReqContent", 1, (*[]int64)(content), func(id *int64, c codec) {
		c.sequence("certReqId", func(c codec) { integer(c, "certReqId", id) })
	})
}

// PollRepContent is the content of pollRep (RFC 9810, 5.3.22).
type PollRepContent []PollRep

func (content *PollRepContent) code(c codec) {
	list(c, "PollRepContent", 1, (*[]PollRep)(content), (*PollRep).code)
}

// PollRep says when to ask again:
//
//	SEQUENCE { certReqId INTEGER, checkAfter INTEGER, reason PKIFreeText OPTIONAL }
type PollRep struct {
	CertReqID  int64
	CheckAfter int64 // seconds
	Reason     PKIFreeText
}

func (p *PollRep) code(c codec) {
	c.sequence("PollRep", func(c codec) {
		integer(c, "certReqId", &p.CertReqID)
		integer(c, "checkAfter", &p.CheckAfter)
		if c.has(cbasn1.SEQUENCE, len(p.Reason) > 0) {
			p.Reason.code(c, "reason")
		}
	})
}

// RevReqContent is the content of rr (RFC 9810, 5.3.9).
type RevReqContent []RevDetails

func (content *RevReqContent) code(c codec) {
	list(c, "RevReqContent", 1, (*[]RevDetails)(content), (*RevDetails).code)
}

// RevDetails names a certificate to revoke:
//
//	RevDetails ::= SEQUENCE { certDetails CertTemplate, crlEntryDetails Extensions OPTIONAL }
type RevDetails struct {
	CertDetails     CertTemplate // issuer and serialNumber
	CRLEntryDetails []pkix.Extension
}

func (d *RevDetails) code(c codec) {
	c.sequence("RevDetails", func(c codec) {
		d.CertDetails.code(c)
		if c.has(cbasn1.SEQUENCE, len(d.CRLEntryDetails) > 0) {
			codeExtensions(c, cbasn1.SEQUENCE, &d.CRLEntryDetails)
		}
	})
}

// RevRepContent is the content of rp (RFC 9810, 5.3.10):
//
//	RevRepContent ::= SEQUENCE {
//	    status       SEQUENCE SIZE (1..MAX) OF PKIStatusInfo,
//	    revCerts [0] SEQUENCE SIZE (1..MAX) OF CertId OPTIONAL,
//	    crls     [1] SEQUENCE SIZE (1..MAX) OF CertificateList OPTIONAL }
type RevRepContent struct {
	Status   []PKIStatusInfo
	RevCerts []CertID
	CRLs     [][]byte // DER
}

func (content *RevRepContent) code(c codec) {
	c.sequence("RevRepContent", func(c codec) {
		list(c, "status", 1, &content.Status, (*PKIStatusInfo).code)
		c.explicit(0, "revCerts", len(content.RevCerts) > 0, func(c codec) {
			list(c, "revCerts", 1, &content.RevCerts, (*CertID).code)
		})
		c.explicit(1, "crls", len(content.CRLs) > 0, func(c codec) { certificates(c, "crls", &content.CRLs) })
	})
}

// GeneralContent is the content of genm and genp (RFC 9810, 5.3.19 and 5.3.20).
type GeneralContent []InfoTypeAndValue

func (content *GeneralContent) code(c codec) {
	list(c, "GenMsgContent", 0, (*[]InfoTypeAndValue)(content), (*InfoTypeAndValue).code)
}

// Info types of general messages that are spoken here (RFC 9483, 4.3).
var (
	// OIDCACerts is id-it-caCerts: asks for, and gives, CA certificates.
	OIDCACerts = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 17}
	// OIDRootCACert is id-it-rootCaCert: asks for an update of the root certificate it holds.
	OIDRootCACert = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 20}
	// OIDRootCAKeyUpdate is id-it-rootCaKeyUpdate: gives the update.
	OIDRootCAKeyUpdate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 18}
	// OIDCertReqTemplate is id-it-certReqTemplate: asks for,
	// and gives, what the CA demands of templates.
	OIDCertReqTemplate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 19}
	// OIDCRLStatusList is id-it-crlStatusList: asks for CRLs that are newer.
	OIDCRLStatusList = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 22}
	// OIDCRLs is id-it-crls: gives them.
	OIDCRLs = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 23}
)

// Value returns the item of a type, and false when there is none.
func (content GeneralContent) Value(infoType asn1.ObjectIdentifier) ([]byte, bool) {
	for _, info := range content {
		if info.Type.Equal(infoType) {
			return info.Value, true
		}
	}
	return nil, false
}

// MarshalCACerts encodes the value of id-it-caCerts (RFC
// 9810, 5.3.19.14). The certificates are DER.
func MarshalCACerts(ders [][]byte) ([]byte, error) {
	return encode(func(c codec) { certificates(c, "CaCertsValue", &ders) })
}

// RootCAKeyUpdate is the value of id-it-rootCaKeyUpdate (RFC
// 9810, 5.3.19.15); all certificates are DER:
//
//	RootCaKeyUpdateValue ::= SEQUENCE {
//	    newWithNew       CMPCertificate,
//	    newWithOld   [0] CMPCertificate OPTIONAL,
//	    oldWithNew   [1] CMPCertificate OPTIONAL }
type RootCAKeyUpdate struct {
	NewWithNew []byte
	NewWithOld []byte // nil: absent
	OldWithNew []byte // nil: absent
}

// Marshal encodes the value of id-it-rootCaKeyUpdate.
func (u RootCAKeyUpdate) Marshal() ([]byte, error) {
	return encode(func(c codec) {
		c.sequence("RootCaKeyUpdateValue", func(c codec) {
			c.element(cbasn1.SEQUENCE, "newWithNew", &u.NewWithNew)
			c.explicitSequence(0, "newWithOld", &u.NewWithOld)
			c.explicitSequence(1, "oldWithNew", &u.OldWithNew)
		})
	})
}
