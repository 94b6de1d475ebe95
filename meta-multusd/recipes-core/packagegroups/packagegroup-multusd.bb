SUMMARY = "multusd, and what belongs to it"
DESCRIPTION = "For images: what comes to belong to multusd reaches them through this."

inherit packagegroup

RDEPENDS:${PN} = "multusd"
